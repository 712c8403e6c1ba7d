"""Settings of all tests: quiet libraries, and one thread, as numbers may depend on that."""

from __future__ import annotations

import pytest
import torch

from flows.environment import quiet

quiet()  # before anything imports Prefect or MLflow
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked gpu are skipped where there is none, and say so."""
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="no CUDA device")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)
