"""One process at a time writes in a run's directory; others are refused, or wait and say so."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blockqnn.errors import SearchError, SettingsError
from blockqnn.search.history import JOURNAL
from blockqnn.storage.lock import DirectoryLock
from blockqnn.search.search import explained


@contextmanager
def open_run(directory: Path, wait: bool) -> Iterator[None]:
    """Make the directory of a run of trainings, and be its only writer meanwhile.

    Raises `SearchError` when another process has it and is not to be waited for, or it cannot be
    written; `SettingsError` for the directory of a search.
    """
    if (directory / JOURNAL).exists():
        raise SettingsError(
            f"name is {directory.name!r}, which a search has: give the trainings another --name"
        )
    if wait:
        announce_holder(directory)
    with explained(directory):
        directory.mkdir(parents=True, exist_ok=True)
        lock = DirectoryLock(directory, wait=math.inf if wait else 0.0)
    try:
        yield
    finally:
        lock.release()


def announce_holder(directory: Path) -> None:
    """Say on standard error whom a process that now waits for a run is waiting for."""
    if not directory.is_dir():
        return
    with explained(directory):
        try:
            DirectoryLock(directory).release()
        except SearchError as error:
            reason = str(error).partition(";")[0]
            print(f"blockqnn: waiting: {reason}", file=sys.stderr, flush=True)
