"""Where MLflow keeps its records, and who may write there."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blockqnn.storage import DirectoryLock

ARTIFACTS = "mlartifacts"
"""Directory under a directory of runs that keeps MLflow's pictures and models."""

PAUSE = 0.15
"""Seconds between two turns of a writer, three times as long as those between two tries of another
to take the lock: one that has much to write would else keep all others waiting."""


def tracking_uri(runs: Path) -> str:
    """Where MLflow's runs are written: MLFLOW_TRACKING_URI, else a database under `runs`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs.resolve() / 'mlflow.db'}"


def artifacts_uri(runs: Path) -> str:
    """Where pictures and models are kept: MLFLOW_ARTIFACTS_DESTINATION (s3://..., say), else a
    directory under `runs`. An MLflow server that is named by its URL decides for itself.
    """
    given = os.environ.get("MLFLOW_ARTIFACTS_DESTINATION", "").rstrip("/")
    return given or (runs.resolve() / ARTIFACTS).as_uri()


def without_password(uri: str) -> str:
    """A tracking URI without the password in it, for terminals and logs."""
    return re.sub(r"(?<=://)([^/@]*?):[^/]*@", r"\1:***@", uri)


def is_server(uri: str) -> bool:
    """Whether an MLflow server keeps the records, and decides where artifacts go."""
    return uri.startswith(("http://", "https://"))


@contextmanager
def database_lock(runs: Path, wait: float = 60.0) -> Iterator[None]:
    """Be the only writer of the database under `runs`; raises SearchError after `wait` seconds.

    Whoever may be the first to use the database takes the lock too: two at once break its tables.
    Leaving it takes a moment, in which another who waits for a turn gets it.
    """
    directory = runs / ARTIFACTS
    directory.mkdir(parents=True, exist_ok=True)
    lock = DirectoryLock(directory, wait=wait)
    try:
        yield
    finally:
        lock.release()
        time.sleep(PAUSE)
