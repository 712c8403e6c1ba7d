"""How a worker talks with whoever started it: JSON lines on standard input and output."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

Message = dict[str, Any]


def serve(
    put: Callable[[Message], None], leave: Callable[[], None] = lambda: None
) -> Callable[[Message], None]:
    """Hand every message from standard input to `put`; returns what sends one.

    The end of standard input ends this process, whatever its other threads are doing, after a call
    of `leave`: whoever started it is gone. What a library prints goes to standard error, not among
    the messages.
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


def served() -> tuple[queue.SimpleQueue[Message], Callable[[Message], None]]:
    """The same with the messages in a queue."""
    messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
    return messages, serve(messages.put)


def _read(put: Callable[[Message], None], leave: Callable[[], None]) -> None:
    try:
        for line in sys.stdin:
            put(json.loads(line))
        leave()
    finally:
        os._exit(0)
