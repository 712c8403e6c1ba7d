"""Settings of all tests: quiet libraries, and one thread, as numbers may depend on that; the long
files first; a Prefect server that tests share.
"""

import signal
from collections.abc import Iterator

import pytest
import torch
from prefect_server import prefect_server

from flows.servers.prefect_api import quiet

quiet()  # before anything imports Prefect or MLflow
torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Begun in a shell's background; what tests start would inherit it, and hear no Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST = {
    name: rank
    for rank, name in enumerate(
        (
            "test_pipeline.py",
            "test_crash.py",
            "test_faults.py",
            "test_train_crash.py",
            "test_serve.py",
            "test_train_flow.py",
            "test_flow.py",
            "test_evaluate_flow.py",
            "test_full_training.py",
        )
    )
}
"""Files of more than a minute, the longest first: one left for the end would be waited for."""


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prefect server that all tests of this process share."""
    with prefect_server(tmp_path_factory.mktemp("prefect")) as url:
        yield url


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; tests marked gpu are skipped where there is none, and say so."""
    items.sort(key=lambda item: LONGEST.get(item.path.name, len(LONGEST)))
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="no CUDA device")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)
