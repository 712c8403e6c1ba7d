"""What a search or final trainings will take, as lines for a person."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from blockqnn.estimate import Needs
from flows.terminal.say import clock


def needs_in_words(needs: Needs, runs: Path) -> Iterator[str]:
    """The lines; what this machine has not enough of is said at the end."""
    side_by_side = f", {needs.at_a_time} at a time" if needs.at_a_time > 1 else ""
    yield (
        f"time    {clock(needs.seconds)} for {needs.trainings:,} trainings of {clock(needs.each)} "
        f"in the mean{side_by_side}"
    )
    memory = psutil.virtual_memory()
    yield f"memory  {_size(needs.memory)}; of {_size(memory.total)}, {_size(memory.available)} free"
    if needs.device_memory is not None:
        yield f"GPU     {_size(needs.device_memory)} of memory of one GPU"
    place = next(path for path in (runs.resolve(), *runs.resolve().parents) if path.exists())
    free = shutil.disk_usage(place).free
    yield f"disk    {_size(needs.disk)} in {runs}; {_size(free)} are free"
    if needs.memory > memory.available:
        yield "There is too little memory: lower recipe.batch, or give fewer workers."
    if needs.disk > free:
        yield f"There is too little disk: free some, or name another place with --runs than {runs}."


def _size(count: int) -> str:
    """Bytes in the unit that has one to three digits before the point."""
    number, units = float(count), ["kB", "MB", "GB", "TB"]
    while (number := number / 1000) >= 1000 and len(units) > 1:
        units.pop(0)
    return f"{number:.3g} {units[0]}"
