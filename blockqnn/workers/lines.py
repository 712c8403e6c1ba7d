"""How a process talks with the one that started it: JSON lines on standard input and output."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from blockqnn.errors import SearchError

Message = Mapping[str, object]
"""A JSON object to send. What is received has no type until the receiver gives it one."""


def serve(
    put: Callable[[Any], None], leave: Callable[[], None] = lambda: None
) -> Callable[[Message], None]:
    """Hand every message from standard input to `put`; returns the function that sends one.

    The end of standard input means that whoever started this process is gone: `leave` is called,
    and the process ends, whatever its other threads are doing. What a library prints goes to
    standard error, not among the messages.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    lock = threading.Lock()

    def send(message: Message) -> None:
        with lock:
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    threading.Thread(target=_read, args=(put, leave), daemon=True).start()
    return send


def _read(put: Callable[[Any], None], leave: Callable[[], None]) -> None:
    try:
        for line in sys.stdin:
            put(json.loads(line))
        leave()
    finally:
        os._exit(0)


class LineProcess:
    """A process `python -m module` that talks in JSON lines.

    It ends when its standard input closes, which the death of this process does too.
    """

    def __init__(
        self,
        module: str,
        begin: Message,
        *,
        log: Path,
        environment: Mapping[str, str],
        receive: Callable[[Any], None],
    ) -> None:
        """Start the process, with its standard error in `log`, and send it `begin`.

        `receive` gets every message, in a thread of its own, and None when the process is gone.
        Raises `SearchError` when it cannot be started: a full disk, no more processes.
        """
        self._receive = receive
        self._lock = threading.Lock()
        try:
            with log.open("ab") as file:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", module],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=file,
                    text=True,
                    env={**os.environ, **environment},
                    start_new_session=True,  # Ctrl-C is for the flow; this ends with its input
                )
        except OSError as error:
            raise SearchError(f"cannot start a worker, its log being {log}: {error}") from None
        threading.Thread(target=self._read, daemon=True).start()
        self.send(begin)

    @property
    def status(self) -> int | None:
        """The exit status of the process, None while it runs."""
        return self._process.poll()

    def send(self, message: Message) -> None:
        """Send a message, which is lost when the process is gone."""
        assert self._process.stdin is not None
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def end(self, patience: float) -> None:
        """Close the process's input, and kill it if it has not ended after `patience` seconds."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # of a line it never read
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        self.kill()

    def kill(self) -> None:
        """Kill the process; returns when it is gone."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError):  # the pipe was closed under the reader: killed
            for line in self._process.stdout:
                if not line.endswith("\n"):  # half of one
                    break
                self._receive(json.loads(line))
        self._process.wait()
        self._close()
        self._receive(None)

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with self._lock, contextlib.suppress(BrokenPipeError):  # of a line it never read
                    pipe.close()
