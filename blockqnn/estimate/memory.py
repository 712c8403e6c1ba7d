"""How much memory the processes below this one take at their peak, and how much of the GPUs'."""

import threading
from types import TracebackType
from typing import Self

import psutil
import torch

INTERVAL = 0.1
"""Seconds between two looks."""


class MemoryWatch:
    """Looks at the memory of this process's descendants, and of GPUs, inside a `with` statement."""

    def __init__(self) -> None:
        self.processes = 0
        """Most bytes of main memory that the descendants had at one time."""
        self.device: int | None = None
        """Most bytes of memory of one GPU that were taken meanwhile; None without a GPU."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._free = _free()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(INTERVAL):
            self.processes = max(self.processes, _of_descendants())
            taken = [before - now for before, now in zip(self._free, _free(), strict=True)]
            if taken:
                self.device = max(self.device or 0, *taken)


def _of_descendants() -> int:
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            total += process.memory_info().rss
        except psutil.Error:  # it has ended meanwhile
            continue
    return total


def _free() -> list[int]:
    """Free bytes of every GPU."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.cuda.mem_get_info(number)[0] for number in range(count)]
