"""The runs that a directory keeps: what they are, how far they are, how large; renamed and deleted
with their records in MLflow.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any

from blockqnn.errors import SearchError, SettingsError, UserError
from blockqnn.search.history import JOURNAL, read_search
from blockqnn.storage import DirectoryLock, as_search_error, is_held
from blockqnn.training.final.result import read_result
from flows.runs import search_directory


@dataclass(frozen=True)
class KeptRun:
    """One search, or one run of final trainings."""

    name: str
    kind: str
    """search or trainings."""
    state: str
    """running, finished, or stopped, which the same command continues."""
    done: int
    """Candidates with an outcome, or trainings with a result."""
    total: int
    best: float | None
    """Best held-out accuracy in percent; None where there is none."""
    megabytes: float
    """What its directory takes on disk."""
    changed: float
    """When it was last written, in seconds since 1970."""


def kept_runs(runs: Path) -> Iterator[KeptRun]:
    """The runs in a directory by name; damaged ones are in the state damaged."""
    for path in sorted(runs.glob("*")):
        journal = path / JOURNAL
        if journal.exists() or (path / "trainings").is_dir():
            yield _kept(path, journal)


def _kept(path: Path, journal: Path) -> KeptRun:
    size, changed = _size(path)
    kind, done, total, best, state = "search", 0, 0, None, "stopped"
    try:
        if journal.exists():
            history = read_search(path)
            first = history.best(1)
            done, total = len(history.results), history.total
            best = first[0].outcome.accuracy if first else None
        else:
            kind = "trainings"
            places = [job.parent for job in path.glob("trainings/*/job.json")]
            results = [result for place in places if (result := read_result(place)) is not None]
            done, total = len(results), len(places)
            measured = [r["accuracy"] for r in results if r["accuracy"] is not None]
            best = max(measured, default=None)
        state = "finished" if done >= total else state
    except UserError:
        state = "damaged"
    state = "running" if is_held(path) else state
    return KeptRun(path.name, kind, state, done, total, best, size / 1e6, changed)


def _size(path: Path) -> tuple[int, float]:
    """Bytes of all files, and when the newest was written; a running search removes some."""
    size, changed = 0, path.stat().st_mtime
    for file in path.rglob("*"):
        with suppress(OSError):
            found = file.lstat()
            if S_ISREG(found.st_mode):
                size, changed = size + found.st_size, max(changed, found.st_mtime)
    return size, changed


def rename(runs: Path, name: str, new: str) -> None:
    """Give a run another name, in MLflow too. Raises `UserError`."""
    target = search_directory(runs, new)
    if target.exists():
        raise SettingsError(f"{new} is the name of another run: choose another, or delete that")
    with _alone(runs, name) as directory, _mlflow(runs) as records:
        records.rename(name, new)  # first: this command again finds what is left to do
        with as_search_error(directory):
            directory.rename(target)


def delete(runs: Path, name: str) -> None:
    """Delete a run with its records in MLflow. Raises `UserError`."""
    with _alone(runs, name) as directory, _mlflow(runs) as records:
        records.delete(name)
        with as_search_error(directory):
            shutil.rmtree(directory)


@contextmanager
def _alone(runs: Path, name: str) -> Iterator[Path]:
    """The directory of a run that no other process has open."""
    directory = search_directory(runs, name)
    if not ((directory / JOURNAL).exists() or (directory / "trainings").is_dir()):
        names = ", ".join(run.name for run in kept_runs(runs)) or "none"
        raise SearchError(f"there is no run {name} in {runs}: there are {names}")
    with as_search_error(directory):
        lock = DirectoryLock(directory)
    try:
        yield directory
    finally:
        lock.release()


@contextmanager
def _mlflow(runs: Path) -> Iterator[Any]:
    """The records of runs in MLflow, whose errors become a `UserError`."""
    from flows.tracking.background import one_line
    from flows.tracking.records import Records
    from flows.tracking.store import database_lock, without_password

    records = Records(runs)
    try:
        with database_lock(runs):
            yield records
    except (UserError, OSError):
        raise
    except Exception as error:  # MLflow raises many things for a server or a database it lacks
        uri = without_password(records.uri)
        raise UserError(
            f"MLflow at {uri} is not written ({one_line(error)}): mend that, then give the same "
            "command again"
        ) from error
