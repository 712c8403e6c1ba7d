"""What the whole stack costs a candidate: flow, tasks, journal, MLflow, with training a sleep.

    python -m benchmarks.speed.stack_overhead [--quick] [--candidates 40] [--sleep 1.0]

The real flow runs with stand-in workers that sleep and then hand out an outcome with a curve of
12 epochs. Wall clock: from the first training to the end of the last, times the slots, over the
candidates, less the sleep; what is left is time in which a worker had nothing to do. CPU: the
seconds of the flow's process and of Prefect's temporary server meanwhile, which trainings on
every core lack. Both also as a share of a ten-second candidate. Each layer's share is the
difference to the run without it; a bare loop around `Search` is the journal alone. Starting and
ending the flow (temporary server, pictures, the last of MLflow) happens once a search and is
given apart, but the CPU of MLflow's last writing counts.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.runs import runs_directory
from flows.servers.prefect_api import choose_prefect_api, quiet

quiet()

from benchmarks import machine  # noqa: E402
from benchmarks.speed.resume_time import supplied_outcome  # noqa: E402
from blockqnn.params import load_settings  # noqa: E402
from blockqnn.search import Search  # noqa: E402
from blockqnn.search.outcome import Outcome  # noqa: E402
from blockqnn.search.search import Candidate  # noqa: E402
from blockqnn.settings import Settings  # noqa: E402
from blockqnn.workers.leash import descendants  # noqa: E402
from blockqnn.workers.protocol import CandidateTask, task_of  # noqa: E402

SLOTS = 2
TEN_SECONDS = 10_000
"""Milliseconds of a candidate, of which overheads are given as a share."""


class Sleepers:
    """Stand-in workers; they note when the first training began and the last one ended."""

    slots = SLOTS

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.trained = 0
        self.begun = 0.0
        self._lock = threading.Lock()

    def train(self, task: CandidateTask) -> Outcome:
        """Sleep, and say that it went well."""
        with self._lock:
            if not self.trained:
                self.begun, self.cpu_begun = time.perf_counter(), cpu_seconds()
            self.trained += 1
        time.sleep(self.seconds)
        with self._lock:
            self.ended, self.cpu_ended = time.perf_counter(), cpu_seconds()
        return supplied_outcome(task["number"])

    def forget(self, number: int) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing to let go of."""


@dataclass(frozen=True)
class Cost:
    """Milliseconds a candidate, and the seconds that a search pays once."""

    wall: float
    cpu: float
    once: float

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall - other.wall, self.cpu - other.cpu, self.once - other.once)

    def __str__(self) -> str:
        shares = f"{100 * self.wall / TEN_SECONDS:.2f} % and {100 * self.cpu / TEN_SECONDS:.2f} %"
        return (
            f"{self.wall:6.1f} ms wall, {self.cpu:6.1f} ms CPU a candidate "
            f"({shares} of ten seconds), {self.once:4.1f} s a search"
        )


def cpu_seconds() -> float:
    """CPU seconds of this process and, on Linux, of those it started, such as Prefect's server."""
    used = sum(os.times()[:2])
    for pid in descendants(os.getpid()):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


def measure(run: Callable[[Sleepers], None], seconds: float) -> Cost:
    """The cost of one search."""
    workers = Sleepers(seconds)
    begun = time.perf_counter()
    run(workers)
    whole = time.perf_counter() - begun
    span = workers.ended - workers.begun
    cpu = workers.cpu_ended - workers.cpu_begun
    idle = span * SLOTS / workers.trained - seconds
    return Cost(1000 * idle, 1000 * cpu / workers.trained, whole - span)


def bare_search(settings: Settings, directory: Path, workers: Sleepers) -> None:
    """Ask, train in threads, tell: the journal alone."""
    running: dict[Future[Outcome], Candidate] = {}
    with Search.open(directory, settings) as search, ThreadPoolExecutor(SLOTS) as pool:
        while not search.finished:
            while len(running) < SLOTS and (candidate := search.ask()) is not None:
                future = pool.submit(workers.train, task_of(candidate))
                running[future] = candidate
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                search.tell(running.pop(future), future.result())


def main() -> None:
    """Print one line a layer."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="4 candidates of 0.1 s")
    parser.add_argument("--candidates", type=int, default=40)
    parser.add_argument("--sleep", type=float, default=1.0, help="seconds of a training")
    options = parser.parse_args()
    if options.quick:
        options.candidates, options.sleep = 4, 0.1
    print(
        f"stack overhead: {machine.describe()}; {options.candidates} candidates of "
        f"{options.sleep} s on {SLOTS} slots",
        flush=True,
    )
    api = choose_prefect_api(runs_directory())
    if not api.temporary:
        print(f"Prefect's server runs already at {api.url}: its CPU is not counted")
    import flows.search
    from evaluation.after_search import write_pictures

    logging.getLogger("prefect").setLevel(logging.ERROR)
    iterations = 2
    overrides = {
        "batch": options.candidates // iterations,
        "schedule": [[1.0, iterations]],
        "space.max_index": 23,
        "budget.memory": None,
    }
    api.wait()
    try:
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory)

            def flow(name: str, tracking: bool) -> Cost:
                changed = {**overrides, "tracking": tracking}

                def run(workers: Sleepers) -> None:
                    def pictures(*arguments: Any) -> None:  # what comes before them is MLflow's
                        workers.cpu_ended = cpu_seconds()
                        write_pictures(*arguments)

                    flows.search.open_workers = lambda settings, where: workers
                    flows.search.write_pictures = pictures
                    with redirect_stdout(io.StringIO()):  # its progress
                        flows.search.search(name, "demo", changed, "params.yaml", directory)

                return measure(run, options.sleep)

            settings = load_settings(Path("params.yaml"), "demo", overrides)
            flow("warm-up", True)  # imports, the temporary server, MLflow's tables
            bare = measure(lambda w: bare_search(settings, root / "bare", w), options.sleep)
            prefect = flow("untracked", False)
            whole = flow("tracked", True)
    finally:
        api.close()
    print(f"journal alone    {bare}")
    print(f"Prefect adds     {prefect - bare}")
    print(f"MLflow adds      {whole - prefect}")
    print(f"the whole stack  {whole}")
    print(f"share {whole.wall / TEN_SECONDS:.2%} of a ten-second candidate (aim: under 1 %)")


if __name__ == "__main__":
    main()
