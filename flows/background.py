"""Work behind a running flow, which never waits for it: writing to MLflow, Prefect's tables."""

import contextvars
import threading
import time
from collections.abc import Callable

SHARE = 0.2
"""Largest share of the time that work in the background may take while a flow runs."""


class BackgroundWork:
    """A thread that does `work` at once, and again whenever it is requested.

    Work that fails does not stop the flow: `warn` gets the error, once until the work succeeds.
    """

    def __init__(self, work: Callable[[], object], warn: Callable[[Exception], None]) -> None:
        """Start the thread, in a copy of the caller's context, which names Prefect's flow run."""
        self._work = work
        self._warn = warn
        self._wanted = threading.Event()
        self._wanted.set()
        self._closing = threading.Event()
        self._warned = False
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=[self._run], daemon=True)
        self._thread.start()

    def request(self) -> None:
        """Ask for the work to be done once more; returns at once."""
        self._wanted.set()

    def close(self, timeout: float = 60.0) -> None:
        """Do the work once more and end; after `timeout` seconds warn, and leave the rest."""
        self._closing.set()
        self._wanted.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._warn_once(TimeoutError("it takes too long"))

    def _run(self) -> None:
        last = False
        while not last:
            self._wanted.wait()
            self._wanted.clear()
            last = self._closing.is_set()
            began = time.monotonic()
            try:
                self._work()
            except Exception as error:  # whatever Prefect or MLflow raises must not stop the flow
                self._warn_once(error)
            else:
                self._warned = False
            self._closing.wait((time.monotonic() - began) / SHARE)

    def _warn_once(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            self._warn(error)
