"""Where a search of a given name lives."""

from __future__ import annotations

import re
from pathlib import Path

from blockqnn.errors import SettingsError


def search_directory(runs: Path, name: str) -> Path:
    """The directory of a search; raises `SettingsError` for a name that is not one plain word."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise SettingsError(
            f"name is {name!r}: give letters, digits, '.', '_' and '-', beginning with a letter or "
            "digit"
        )
    return runs / name
