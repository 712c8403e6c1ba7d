"""What one search costs as it grows to a million candidates, a thousand of them in flight.

    python -m benchmarks.scale.million_candidates [--quick] [--directory DIR]

A real search (ask, tell, agent, journal) of the paper's space, network and memory budget in async
mode, with 1,000 simulated workers whose trainings take no time: the oldest in flight ends next.
Each stretch is half random (epsilon 1) and half greedy (0.1), so that rows can be compared; after
each the search is closed and opened again, and goes on from there. A row has the candidates told so
far, the distinct blocks among them, CPU microseconds a candidate of asking (which settles repeats
and blocks over the budget too) and of telling, candidates a second on the clock, the memory of the
process beyond what it had before (Linux), the journal, and CPU seconds to open it.

The last stretch against the first comparable one (to 10,240 candidates) shows what grows faster
than linearly. The long search does not wait for the disk; how long `fsync` takes here and how often
a candidate waits for it is measured apart, and so is what curves of 12 epochs add, which a
simulated training has none of.
"""

import argparse
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import machine
from benchmarks.scale.async_search import supplied
from benchmarks.speed.resume_time import supplied_outcome
from blockqnn.search import Search
from blockqnn.search.outcome import Outcome
from blockqnn.search.search import JOURNAL, Candidate
from blockqnn.settings import DataSettings, Settings

SLOTS = 1_000
BATCH = 64
STRETCHES = (16, 160, 1_600, 4_800, 15_625)
"""Iterations of 64 after which the search is opened again; the last is a million candidates."""
SHORT = (16, 32)
WITH_CURVES = 160
WAITED = 16
COLUMNS = (
    "candidates  epsilon   distinct  us asking  us telling  a second  memory MB  journal MB  "
    "s to open"
)


def settings_for(stretches: tuple[int, ...]) -> Settings:
    """The paper's settings on data that need no download; half of each stretch is random."""
    schedule: list[tuple[float, int]] = []
    begun = 0
    for end in stretches:
        half = (end - begun) // 2
        schedule += [(1.0, half), (0.1, end - begun - half)]
        begun = end
    data = DataSettings(name="digits")
    return Settings(mode="async", batch=BATCH, schedule=tuple(schedule), data=data, tracking=False)


@dataclass
class Spent:
    """CPU seconds."""

    asking: float = 0.0
    telling: float = 0.0


def work(
    search: Search,
    in_flight: deque[Candidate],
    slots: int,
    until: int,
    outcome: Callable[[Candidate], Outcome],
) -> Spent:
    """Ask and tell with all slots full until so many iterations are complete."""
    spent = Spent()
    while search.iteration < until:
        begun = time.process_time()
        while len(in_flight) < slots and (candidate := search.ask()) is not None:
            in_flight.append(candidate)
        asked = time.process_time()
        spent.asking += asked - begun
        if in_flight:
            candidate = in_flight.popleft()
            found = outcome(candidate)
            begun = time.process_time()
            search.tell(candidate, found)
            spent.telling += time.process_time() - begun
    return spent


def memory() -> float:
    """MB of this process in memory; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def grow(
    directory: Path,
    at_start: float,
    slots: int,
    stretches: tuple[int, ...],
    outcome: Callable[[Candidate], Outcome],
) -> list[float]:
    """Print a row for each phase; return the CPU seconds a candidate of each."""
    settings = settings_for(stretches)
    search = Search.open(directory, settings)
    in_flight: deque[Candidate] = deque()
    costs = []
    until = 0
    print(COLUMNS, flush=True)
    for phase, (epsilon, iterations) in enumerate(settings.schedule):
        until += iterations
        done = len(search.results)
        begun = time.perf_counter()
        spent = work(search, in_flight, slots, until, outcome)
        seconds = time.perf_counter() - begun
        done = max(len(search.results) - done, 1)
        distinct = sum(result.same_as is None for result in search.results)
        row = (
            f"{len(search.results):10,}  {epsilon:7}  {distinct:9,}  "
            f"{1e6 * spent.asking / done:9.0f}  {1e6 * spent.telling / done:10.0f}  "
            f"{done / seconds:8,.0f}  {memory() - at_start:9,.0f}  "
            f"{(directory / JOURNAL).stat().st_size / 1e6:10.1f}"
        )
        costs.append((spent.asking + spent.telling) / done)
        if phase % 2 == 0:
            print(row, flush=True)
            continue
        left = len(search.pending)
        search.close()
        del search
        begun = time.process_time()
        search = Search.open(directory, settings)
        print(f"{row}  {time.process_time() - begun:9.1f}", flush=True)
        assert len(search.pending) == left, "a candidate in flight was lost"
        in_flight.clear()  # they are asked for again
    assert search.finished and search.ask() is None
    search.close()
    return costs


def with_curve(candidate: Candidate) -> Outcome:
    """The outcome with a curve of 12 epochs, as a training leaves it behind."""
    curve = supplied_outcome(candidate.number).curve
    return replace(supplied(candidate, 0.0), curve=curve)


def waits(directory: Path, settings: Settings) -> None:
    """Print how long `fsync` takes here, and how often a candidate waits for it."""
    seconds: list[float] = []
    really = os.fsync

    def timed(descriptor: int) -> None:
        begun = time.perf_counter()
        really(descriptor)
        seconds.append(time.perf_counter() - begun)

    with Search.open(directory, settings) as search:
        os.fsync = timed
        work(search, deque(), 100, WAITED, lambda candidate: supplied(candidate, 0.0))
        os.fsync = really
        count = len(search.results)
    print(
        f"waiting for the disk: {len(seconds) / count:.1f} times a candidate, "
        f"{1000 * sum(seconds) / len(seconds):.2f} ms each",
        flush=True,
    )


def main() -> None:
    """Print the table, what curves add, and the growth in the last line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="2,048 candidates instead of a million"
    )
    parser.add_argument("--directory", type=Path, help="where the temporary directory is made")
    options = parser.parse_args()
    begun = time.perf_counter()
    stretches, slots = (SHORT, 100) if options.quick else (STRETCHES, SLOTS)
    print(f"a million candidates: {machine.describe()}; {slots:,} in flight", flush=True)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        root = Path(directory)
        waits(root / "waits", settings_for((WAITED,)))
        os.fsync = lambda descriptor: None  # power may be lost: nothing here is worth keeping
        at_start = memory()
        if not options.quick:
            print("with curves of 12 epochs:")
            grow(root / "curves", at_start, slots, (WITH_CURVES,), with_curve)
            print("without:")
        costs = grow(root / "search", at_start, slots, stretches, lambda c: supplied(c, 0.0))
    early, late = costs[:2] if options.quick else costs[2:4], costs[-2:]
    print(
        f"ratio {late[0] / early[0]:.2f} at random and {late[1] / early[1]:.2f} greedily of the "
        f"CPU time of a candidate in the last stretch to the "
        f"{'first' if options.quick else 'second'}; took {time.perf_counter() - begun:.0f} s"
    )


if __name__ == "__main__":
    main()
