"""Ctrl-C, and SIGTERM, which a preempted machine gets: noticed wherever Python happens to be.

Python may raise a signal's exception within a finaliser or a callback. It then prints the exception
and goes on, and the signal would be lost. So it is remembered too, and the loops that wait for
trainings ask for it.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_asked = False


@contextmanager
def remember_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt, and remember them, until the block ends.

    Works in the main thread only. SIGINT stays ignored where it is, as in a shell's background.
    """
    global _asked
    _asked = False
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt if a signal has come, even one whose exception was lost."""
    if _asked:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    global _asked
    _asked = True
    raise KeyboardInterrupt
