"""What flow and mirror carry: a thousand Prefect tasks that wait, runs in MLflow's database.

    python -m benchmarks.scale.flow_limits [--quick]

1. The real flow in async mode with 1,000 stand-in workers in its own process, Prefect's temporary
   server on SQLite beside it. The first 1,000 trainings end when all of them wait, each in a thread
   of Prefect's; the others take no time. So the first rate is that of beginning tasks, the second
   of whole ones, and both are the most that one flow carries on this machine, whatever the workers.
2. Runs a second that `SearchRuns.sync` writes into MLflow's SQLite database, each a trained block
   with curves of 12 epochs and a picture, when none, 1,000 and 10,000 are there. Those that are
   there are copies made in the database, of what a sync wrote: making them would take most of an
   hour.
"""

import argparse
import io
import logging
import os
import sqlite3
import tempfile
import threading
import time
from collections import deque
from contextlib import closing, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.servers.prefect_api import choose_prefect_api, quiet

quiet()

from benchmarks import machine  # noqa: E402
from benchmarks.scale.million_candidates import memory, settings_for, with_curve, work  # noqa: E402
from benchmarks.speed.stack_overhead import cpu_seconds  # noqa: E402
from blockqnn.search import Search  # noqa: E402
from blockqnn.search.outcome import Outcome  # noqa: E402
from blockqnn.settings import Budget  # noqa: E402
from blockqnn.workers.protocol import CandidateTask  # noqa: E402
from flows.tracking.searches import SearchRuns  # noqa: E402

BATCH = 64
COPIED = "run_uuid IN (SELECT run_uuid FROM originals)"


class Crowd:
    """Stand-in workers: the first trainings wait until every slot has one, the others not."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.trained = 0
        self.threads = 0
        self.memory = 0.0
        self._full = threading.Barrier(slots, self._note)
        self._lock = threading.Lock()

    def train(self, task: CandidateTask) -> Outcome:
        """Wait for the crowd, if it is not complete."""
        with self._lock:
            if not self.trained:
                self.begun, self.cpu_begun = time.perf_counter(), cpu_seconds()
            self.trained += 1
            early = self.trained <= self.slots
        if early:
            self._full.wait()
        self.ended = time.perf_counter()
        return Outcome(kind="trained", accuracy=50.0)

    def _note(self) -> None:
        self.full, self.cpu_full = time.perf_counter(), cpu_seconds()
        self.threads, self.memory = threading.active_count(), memory()

    def forget(self, number: int) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing to let go of."""


def flow(root: Path, slots: int, candidates: int) -> float:
    """Print what the flow carried; whole candidates a second."""
    os.environ["PREFECT_HOME"] = str(root / "prefect")
    api = choose_prefect_api(root)
    if not api.temporary:
        print(f"Prefect's server runs already at {api.url}: its CPU is not counted")
    import flows.search

    logging.getLogger("prefect").setLevel(logging.ERROR)
    crowd = Crowd(slots)
    flows.search.open_workers = lambda settings, directory: crowd
    flows.search.write_pictures = lambda *arguments: None
    changed: dict[str, Any] = {
        "mode": "async",
        "batch": BATCH,
        "schedule": [[1.0, candidates // BATCH]],
        "space.max_index": 23,
        "budget.memory": None,
        "tracking": False,
    }
    api.wait()
    before = memory()
    try:
        with redirect_stdout(io.StringIO()):  # its progress
            flows.search.search("crowd", "demo", changed, "params.yaml", str(root))
        over, cpu_over = time.perf_counter(), cpu_seconds()
    finally:
        api.close()
    database = sum(file.stat().st_size for file in (root / "prefect").glob("prefect.db*"))
    filling, whole = crowd.full - crowd.begun, crowd.ended - crowd.begun
    after, tasks = crowd.trained - slots, crowd.trained
    cpu_filling = 1000 * (crowd.cpu_full - crowd.cpu_begun) / slots
    cpu = 1000 * (cpu_over - crowd.cpu_begun) / tasks
    rate = tasks / whole
    kilobytes = database / tasks / 1000
    print(
        f"{slots:,} tasks waiting after {filling:.1f} s, {slots / filling:.0f} begun a second with "
        f"{cpu_filling:.0f} ms CPU each: {crowd.threads:,} threads, "
        f"{(crowd.memory - before) * 1000 / slots:.0f} kB a task"
    )
    print(
        f"then {after:,} that end at once, {after / (crowd.ended - crowd.full):.0f} a second; "
        f"{tasks:,} in all, {rate:.0f} a second, {cpu:.0f} ms CPU and {kilobytes:.0f} kB "
        f"of Prefect's database each; the flow ended {over - crowd.ended:.1f} s after the last",
        flush=True,
    )
    return rate


def mirror(root: Path, counts: tuple[int, ...], batch: int) -> float:
    """Print runs a second with so many runs there already; the last one."""
    settings = replace(settings_for((4,)), batch=batch, budget=Budget(memory=None))
    rate = 0.0
    for count in counts:
        runs = root / f"{count}"
        search = runs / "demo"
        with Search.open(search, settings) as opened:
            work(opened, deque(), 1, 2, with_curve)
        if count == 0:
            SearchRuns(search, "warm-up", runs).sync()  # imports, MLflow's tables
        else:
            SearchRuns(search, "demo", runs).sync()
            multiply(runs / "mlflow.db", count)
        with Search.open(search, settings) as opened:
            work(opened, deque(), 1, 4, with_curve)
        begun, cpu = time.perf_counter(), time.process_time()
        written = SearchRuns(search, "demo", runs).sync()
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        rate = written / seconds
        size = (runs / "mlflow.db").stat().st_size
        print(
            f"{count:,} runs there: {rate:.1f} runs a second, {1000 * cpu / written:.0f} ms CPU "
            f"each ({written} written, database {size / 1e6:.0f} MB)",
            flush=True,
        )
    return rate


def multiply(database: Path, count: int) -> None:
    """Copy the finished child runs of MLflow's database until it has so many."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "CREATE TEMP TABLE originals AS "
            "SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId'"
        )
        (have,) = connection.execute("SELECT count(*) FROM originals").fetchone()
        for copy in range(1, count // have):
            for table in ("runs", "params", "tags", "metrics", "latest_metrics"):
                found = connection.execute(f"PRAGMA table_info({table})").fetchall()
                columns = ", ".join(f'"{column[1]}"' for column in found)
                renamed = columns.replace(
                    '"run_uuid"', f"substr(run_uuid, 1, 24) || printf('%08x', {copy})"
                )
                connection.execute(
                    f"INSERT INTO {table} ({columns}) SELECT {renamed} FROM {table} WHERE {COPIED}"
                )


def main() -> None:
    """Print both parts, and the rates in the last line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="20 slots, 128 candidates, 8 runs")
    options = parser.parse_args()
    begun = time.perf_counter()
    print(f"flow limits: {machine.describe()}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        rate = flow(root, *((20, 128) if options.quick else (1_000, 4_096)))
        counts = (0,) if options.quick else (0, 1_000, 10_000)
        mirrored = mirror(root / "mirrored", counts, 4 if options.quick else BATCH)
    print(
        f"the flow carries {rate:.0f} candidates a second, the mirror {mirrored:.1f} distinct "
        f"blocks; took {time.perf_counter() - begun:.0f} s"
    )


if __name__ == "__main__":
    main()
