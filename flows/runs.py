"""Where the runs of a given name are, searches and final trainings, and who has one open."""

import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blockqnn.errors import SearchError, SettingsError
from blockqnn.search.history import JOURNAL
from blockqnn.settings import Settings
from blockqnn.storage import DirectoryLock, as_search_error

RUNS_VARIABLE = "BLOCKQNN_RUNS"
"""Environment variable with the directory of all runs; `blockqnn serve` sets it for its worker."""

TAKEN = re.compile(r"serve|mlartifacts|mlflow\.db.*", re.IGNORECASE)
"""Names of what else lies beside the runs: the logs of `blockqnn serve`, and MLflow's files."""

DVC_COPIES = (".dvc", "tmp", "exps")
"""Where a checkout has the copies in which DVC runs experiments."""


def runs_directory() -> Path:
    """The directory of all runs and of the MLflow database when nobody names another.

    In the temporary copy of a checkout in which `dvc exp run --temp` and DVC's queue work, it is
    that of the checkout: the copy goes, and what was trained stays.
    """
    if named := os.environ.get(RUNS_VARIABLE):
        return Path(named)
    here = Path.cwd()
    for place in here.parents:
        if place.parts[-3:] == DVC_COPIES:
            return place.parents[2] / "runs"
    return Path("runs")


def search_directory(runs: Path, name: str) -> Path:
    """The directory of the run `name`. Raises `SettingsError` unless that is one plain word."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise SettingsError(
            f"name is {name!r}: give letters, digits, '.', '_' and '-', beginning with a letter or "
            "digit"
        )
    if TAKEN.fullmatch(name):
        raise SettingsError(
            f"name is {name!r}: `blockqnn serve` and MLflow keep files of their own there; choose "
            "another"
        )
    return runs / name


def run_directory(runs: Path, name: str | None, data: str) -> tuple[str, Path]:
    """Name and directory of a run of final trainings on `data`, which is train-DATA without a name.

    Raises `SettingsError` for a name that is not one plain word.
    """
    name = name if name is not None else f"train-{data}"
    return name, search_directory(runs, name)


def name_by_settings(name: str, settings: Settings) -> str:
    """The name with a hash of what the results of a search depend on: its settings and its images.

    In a pipeline whose settings change, each of them then has a search of its own, and going back
    to earlier ones finds theirs again. Reads the images. Raises `SettingsError`.
    """
    from blockqnn.data import load  # torch, which most commands do without

    tree = {
        key: value
        for key, value in settings.to_dict().items()
        if key not in ("data", "workers", "tracking")
    }
    tree["images"] = load(settings.data, settings.seed).fingerprint  # of the split too
    text = json.dumps(tree, sort_keys=True)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@contextmanager
def open_run(directory: Path, wait: bool) -> Iterator[None]:
    """Make the directory of a run of final trainings, and be its only writer until the block ends.

    Raises `SearchError` when it cannot be written, or when another process has it and `wait` is
    false, and `SettingsError` for the directory of a search.
    """
    if (directory / JOURNAL).exists():
        raise SettingsError(
            f"name is {directory.name!r}, which a search has: give the trainings another --name"
        )
    if wait:
        announce_holder(directory)
    with as_search_error(directory):
        directory.mkdir(parents=True, exist_ok=True)
        lock = DirectoryLock(directory, wait=math.inf if wait else 0.0)
    try:
        yield
    finally:
        lock.release()


def announce_holder(directory: Path) -> None:
    """Say on standard error which process has the run in `directory`, if one has."""
    if not directory.is_dir():
        return
    with as_search_error(directory):
        try:
            DirectoryLock(directory).release()
        except SearchError as error:
            reason = str(error).partition(";")[0]
            print(f"blockqnn: waiting: {reason}", file=sys.stderr, flush=True)
