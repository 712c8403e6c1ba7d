"""The journal of a search mirrored in MLflow: an experiment a search, a child run a distinct block.

MLflow is never asked what was done; it may be deleted and is written again from the journal. Every
write can be repeated: runs are found by their number, and metrics carry the journal's times, which
MLflow takes in once. One writer at a time works on a database (`database_lock`), in short turns.

MLflow is imported by the first sync, not before: it takes seconds that nobody should wait for.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Protocol

from blockqnn.search.history import History, read_search
from flows.tracking.searches import Turn
from flows.tracking.store import database_lock, shown, tracking_uri

log = logging.getLogger(__name__)

SHARE = 0.2
"""Largest share of the time that syncing may take while a flow runs."""


class Tracker:
    """Mirrors the search in `directory` as the MLflow experiment `blockqnn/<name>`."""

    def __init__(
        self, directory: Path, name: str, runs: Path, history: History | None = None
    ) -> None:
        """`runs` holds database and artifacts, unless MLFLOW_TRACKING_URI says otherwise.

        `history` is the running search, if at hand: results are only ever added, so a thread may
        read them, and the journal need not be read again and again.
        """
        self.directory = directory
        self.name = name
        self.runs = runs
        self.uri = tracking_uri(runs)
        self._history = history

    def sync(self) -> int:
        """Write what the journal has and MLflow lacks; return the number of child runs written.

        Safe to call at any time, from any process.
        Raises SearchError when there is no journal, and MLflow's or the system's errors when the
        database does not take it: what was written stays, and the next sync goes on from there.
        """
        history = self._history or read_search(self.directory)
        written = 0
        while True:
            with database_lock(self.runs):
                turn = Turn(history, self.directory, self.name, self.runs)
                written += turn.write()
            if turn.done:
                return written


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
            self._warn(why(error))
        else:
            self._warned = False

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "MLflow at %s is not up to date (%s); the flow goes on and catches up later, "
                "or run: blockqnn track --name %s",
                shown(self._mirror.uri),
                reason,
                self._mirror.name,
            )


def why(error: Exception) -> str:
    """What MLflow raised, in a line."""
    if "error code 401" in str(error):
        return (
            "it wants the MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD it was begun with"
        )
    return str(error).partition("\n")[0] or type(error).__name__
