"""The journal of a search mirrored in MLflow: an experiment a search, a child run a distinct block.

MLflow is never asked what was done; it may be deleted and is written again from the journal. Every
write can be repeated: runs are found by their number, and metrics carry the journal's times, which
MLflow takes in once. One writer at a time works on a database (`database_lock`), in short turns.

MLflow is imported by the first sync, not before: it takes seconds that nobody should wait for.
"""

import logging
import threading
import time
from typing import Protocol

from flows.tracking.store import without_password

log = logging.getLogger(__name__)

SHARE = 0.2
"""Largest share of the time that syncing may take while a flow runs."""


class Mirror(Protocol):
    """A run that `sync` writes into MLflow at `uri`, as far as it has come."""

    name: str
    uri: str

    def sync(self) -> int:
        """Write what MLflow lacks; return the number of runs written."""


class BackgroundTracker:
    """Keeps MLflow up to date behind a running flow, which never waits for it.

    Trouble with MLflow (server down, disk full, database locked) is logged once until it is over;
    what was missed is written by the next sync that succeeds.
    """

    def __init__(self, mirror: Mirror) -> None:
        """Start with a first sync: an earlier process may have left something behind."""
        self._mirror = mirror
        self._wanted = threading.Event()
        self._wanted.set()
        self._closing = threading.Event()
        self._warned = False
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    def request(self) -> None:
        """There is something new; returns at once."""
        self._wanted.set()

    def close(self, timeout: float = 60.0) -> None:
        """Sync once more and end; after `timeout` seconds leave the rest to a later sync."""
        self._closing.set()
        self._wanted.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._warn("it takes too long")

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            last = self._closing.is_set()
            began = time.monotonic()
            self._sync()
            if last:
                return
            self._closing.wait((time.monotonic() - began) / SHARE)

    def _sync(self) -> None:
        try:
            self._mirror.sync()
        except Exception as error:  # whatever MLflow raises must not stop the flow
            self._warn(one_line(error))
        else:
            self._warned = False

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "MLflow at %s is not up to date (%s); the flow goes on and catches up later, "
                "or run: blockqnn track --name %s",
                without_password(self._mirror.uri),
                reason,
                self._mirror.name,
            )


def one_line(error: Exception) -> str:
    """What MLflow raised, in a line."""
    if "error code 401" in str(error):
        return (
            "it wants the MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD it was begun with"
        )
    return str(error).partition("\n")[0] or type(error).__name__
