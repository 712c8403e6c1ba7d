"""Ctrl-C, and SIGTERM, which a preempted machine gets: noticed wherever Python happens to be.

A signal's exception is raised between any two instructions. Where that is within a finaliser or a
callback, Python prints it and goes on: the signal would be lost. So it is remembered too, and the
loops that wait for trainings look.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_asked = False


@contextmanager
def remember_signals() -> Iterator[None]:
    """Both signals raise KeyboardInterrupt and are remembered until the block ends.

    In the main thread only. A SIGINT that is ignored, as in a shell's background, stays so.
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
    """Raise KeyboardInterrupt if there was a signal, whatever became of its exception."""
    if _asked:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    global _asked
    _asked = True
    raise KeyboardInterrupt
