"""Where a search of a given name lives."""

from __future__ import annotations

import os
import re
from pathlib import Path

from blockqnn.errors import SettingsError

RUNS_VARIABLE = "BLOCKQNN_RUNS"
"""Environment variable that says where searches live; `blockqnn serve` sets it for its worker."""


def runs_directory() -> Path:
    """Where searches and the MLflow database live when nobody says otherwise."""
    return Path(os.environ.get(RUNS_VARIABLE) or "runs")


def search_directory(runs: Path, name: str) -> Path:
    """The directory of a search; raises `SettingsError` for a name that is not one plain word."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise SettingsError(
            f"name is {name!r}: give letters, digits, '.', '_' and '-', beginning with a letter or "
            "digit"
        )
    return runs / name
