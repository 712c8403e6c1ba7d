"""Keeps MLflow up to date behind a running search, which never waits for it."""

from __future__ import annotations

import logging
import threading
import time

from flows.tracking import Tracker

log = logging.getLogger(__name__)

SHARE = 0.05
"""Largest share of the time that syncing may take: reading a long journal takes a while."""


class Mirror:
    """Syncs a `Tracker` in a thread of its own whenever asked to.

    Trouble with MLflow (server down, disk full, database locked) is logged once until it is over;
    what was missed is written by the next sync that succeeds.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._warned = False
        self._thread = threading.Thread(target=self._run, name="mlflow mirror", daemon=True)

    def start(self) -> None:
        """Begin with a first sync: an earlier process may have left something behind."""
        self._wanted.set()
        self._thread.start()

    def request(self) -> None:
        """The journal has grown; returns at once."""
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
            last = self._closing.is_set()
            self._wanted.clear()
            began = time.monotonic()
            self._sync()
            if last:
                return
            self._closing.wait((time.monotonic() - began) / SHARE)

    def _sync(self) -> None:
        try:
            self._tracker.sync()
        except Exception as error:  # whatever MLflow raises must not stop the search
            self._warn(str(error).partition("\n")[0] or type(error).__name__)
        else:
            self._warned = False

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "MLflow at %s is not up to date (%s); the search goes on and catches up later, "
                "or run: blockqnn track --name %s",
                self._tracker.uri,
                reason,
                self._tracker.name,
            )
