"""The runs that a directory keeps: what they are, how far they are, how large; renamed and deleted
with their records in MLflow.
"""

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockqnn.errors import SearchError, SettingsError, UserError
from blockqnn.search.history import JOURNAL, read_search
from blockqnn.storage import DirectoryLock, as_search_error
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
    files = [file.stat() for file in path.rglob("*") if file.is_file()]
    size, changed = sum(file.st_size for file in files), max(file.st_mtime for file in files)
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
    state = "running" if is_open(path) else state
    return KeptRun(path.name, kind, state, done, total, best, size / 1e6, changed)


def is_open(directory: Path) -> bool:
    """Whether a process has a run open, be it on another host with the same file system."""
    try:
        holder = json.loads((directory / "lock").read_text())
        if holder["host"] == socket.gethostname():
            os.kill(holder["pid"], 0)
        DirectoryLock(directory).release()
    except SearchError:
        return True
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return False


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
