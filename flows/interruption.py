"""Ctrl-C, and SIGTERM, which a preempted machine gets: noticed wherever Python happens to be.

Python may raise a signal's exception within a finaliser or a callback. It then prints the exception
and goes on, and the signal would be lost. So it is remembered too, and the loops that wait for
trainings ask for it.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import psutil

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


@contextmanager
def ending_with_dvc(every: float = 1.0) -> Iterator[None]:
    """Send this process SIGTERM within so many seconds after the DVC that started it has gone.

    A SIGKILL for `dvc repro` or `dvc exp run` reaches no stage of it: a training nobody waits for
    would go on for hours. Without DVC nothing is watched.
    """
    dvc, done = _dvc_above(), threading.Event()

    def watch(dvc: psutil.Process) -> None:
        while not done.wait(every):
            if not dvc.is_running() or dvc.status() == psutil.STATUS_ZOMBIE:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    if dvc is not None:
        threading.Thread(target=watch, args=(dvc,), daemon=True, name="watch-dvc").start()
    try:
        yield
    finally:
        done.set()


def _dvc_above() -> psutil.Process | None:
    """The DVC that runs this process in a shell, if there is one."""
    with suppress(psutil.Error):
        for process in psutil.Process().parents()[:2]:
            words = process.cmdline()[:3]
            if any(Path(word).name in ("dvc", "dvc.exe") for word in words):
                return process
    return None


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt if a signal has come, even one whose exception was lost."""
    if _asked:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    global _asked
    _asked = True
    raise KeyboardInterrupt
