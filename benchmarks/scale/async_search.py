"""32 workers with skewed training times: how busy they are, sync and async, and what is found.

    python -m benchmarks.scale.async_search [--quick]

Nothing is trained and nothing waits: real searches (ask, tell, agent, journal) with simulated
workers and a virtual clock (benchmarks/scale/simulated.py). A training takes time in proportion to
the multiply-accumulates of the block that was really proposed, times lognormal noise, one in a
hundred three to ten times as long. The journals do not wait for the disk.

1. Utilisation, on the paper's search (178 iterations of 64, space, network, memory budget) and on
   one five times as long, whose drain at the end is a smaller part; the reward is a function of the
   block, since nobody trains it. In async mode as many candidates are in flight as there are slots
   at every moment until the last proposal: asserted. What follows, the drain, is counted in one of
   the two figures.
2. What is found, on a table of trained blocks (benchmarks/studies/block_table.py), with the agent
   of the demo, the same seeds and times in sync and async mode: the demo's schedule with few and
   with many in flight, and the paper's schedule with 32, at the paper's learning rate too. Mean
   reward of the candidates of the greedy phase (the schedule's last epsilon), and the best block;
   the difference by seed with a 95 % interval (Student's t).
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import stats

from benchmarks import machine
from benchmarks.scale.simulated import simulate
from benchmarks.speed.agent_speed import supplied_reward
from benchmarks.studies.block_table import Table, read_table, table_settings
from blockqnn.search import Search
from blockqnn.search.outcome import Outcome
from blockqnn.search.search import Candidate
from blockqnn.settings import DataSettings, QLearningSettings, Settings

SLOTS = 32
SEEDS = 30
LONGER = 5
DEMO, PAPER = table_settings("digits").schedule, Settings().schedule
TABULAR = (
    (DEMO, 16, (2,), 0.2, SEEDS),
    (DEMO, 64, (4, 32), 0.2, SEEDS),
    (PAPER, 64, (32,), 0.2, SEEDS),
    (PAPER, 64, (32,), 0.01, 2 * SEEDS),
)
"""Schedule, candidates an iteration, how many are in flight in async mode, learning rate (the
demo's, and the paper's, with which searches differ more), seeds."""
MODES: tuple[Literal["sync", "async"], ...] = ("sync", "async")


def supplied(candidate: Candidate, seconds: float) -> Outcome:
    """A made-up outcome, fixed for each block, from which an agent can learn."""
    accuracy = min(supplied_reward(candidate.block), 100.0)
    return Outcome(kind="trained", accuracy=accuracy, seconds=seconds)


def looked_up(table: Table, candidate: Candidate, seconds: float) -> Outcome:
    """What the block's training came to when the table was made."""
    return replace(table.outcome(candidate.block), seconds=seconds)


def utilisation(root: Path, schedule: tuple[tuple[float, int], ...]) -> dict[str, float]:
    """Print a line for each mode; return percent by mode, the drain included."""
    found = {}
    root.mkdir()
    print(f"{sum(count for _, count in schedule):,} iterations of 64:")
    for mode in MODES:
        settings = Settings(
            mode=mode, schedule=schedule, data=DataSettings(name="digits"), tracking=False
        )
        with Search.open(root / mode, settings) as search:
            trace = simulate(search, SLOTS, supplied)
            candidates = len(search.results)
            reward = greedy(search)
        found[mode] = trace.utilisation
        times = np.array(trace.seconds)
        if mode == "sync":
            low, median, high = np.percentile(times, [5, 50, 95])
            print(
                f"trainings: {len(times):,} of {candidates:,} candidates (the others are repeats "
                f"or over the budget); seconds in percentiles 5, 50, 95 and the longest: "
                f"{low:.1f}, {median:.0f}, {high:.0f}, {times.max():.0f}"
            )
        line = f"utilisation {mode}: {trace.utilisation:.2f} % of {SLOTS} slots"
        if mode == "async":
            if not trace.always_full():
                raise SystemExit("async: a slot was free before the last proposal")
            line += (
                f", {trace.utilisation_before_drain:.2f} % without the drain; exactly {SLOTS} in "
                f"flight at all {trace.drained:,} events before it"
            )
        hours = sum(seconds for seconds, _ in trace.spans) / 3600
        line += f"; {hours:.1f} simulated hours"
        print(f"{line}; mean reward of the greedy phase {reward:.2f}", flush=True)
    return found


def results(table: Table, settings: Settings, slots: int, seeds: int) -> np.ndarray:
    """Mean of the greedy phase and best reward a seed: an array (seeds, 2)."""
    rows = []
    for seed in range(seeds):
        with (
            tempfile.TemporaryDirectory() as directory,
            Search.open(directory, replace(settings, seed=seed)) as search,
        ):
            simulate(search, slots, partial(looked_up, table))
            rows.append((greedy(search), search.best(1)[0].reward))
    return np.array(rows)


def greedy(search: Search) -> float:
    """Mean reward of the candidates proposed with the schedule's last epsilon."""
    last = search.settings.schedule[-1][0]
    return float(np.mean([r.reward for r in search.results if r.candidate.epsilon == last]))


def compare(sync: np.ndarray, other: np.ndarray, setting: str) -> None:
    """Print a line for each measure."""
    for column, measure in enumerate(("mean reward of the greedy phase", "best reward")):
        one, two = sync[:, column], other[:, column]
        difference = two - one
        half = stats.t.ppf(0.975, len(difference) - 1) * stats.sem(difference)
        print(
            f"{setting}, {measure}, {len(one)} seeds: sync {one.mean():.2f} "
            f"(sd {one.std(ddof=1):.2f}), async {two.mean():.2f} (sd {two.std(ddof=1):.2f}), "
            f"difference {difference.mean():+.2f} "
            f"[{difference.mean() - half:+.2f}, {difference.mean() + half:+.2f}]",
            flush=True,
        )


def main() -> None:
    """Print both parts, and the comparison in the last line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="6 iterations, 3 seeds")
    options = parser.parse_args()
    begun = time.perf_counter()
    os.fsync = lambda descriptor: None  # power may be lost: nothing here is worth keeping
    schedule = ((1.0, 4), (0.1, 2)) if options.quick else Settings().schedule
    print(f"async search: {machine.describe()}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        found = utilisation(root / "short", schedule)
        if not options.quick:
            found = utilisation(root / "long", tuple((e, LONGER * n) for e, n in schedule))
        table = read_table("digits")
        print(
            f"table: {len(table.outcomes)} blocks really trained, {table.provenance['command']}, "
            f"commit {table.provenance['commit']}"
        )
        for schedule, batch, in_flight, rate, count in TABULAR[:1] if options.quick else TABULAR:
            seeds = 3 if options.quick else count
            agent = QLearningSettings(learning_rate=rate)
            settings = replace(
                table_settings("digits"), schedule=schedule, batch=batch, agent=agent
            )
            sync = results(table, settings, SLOTS, seeds)  # the same for any slots
            total = batch * sum(count for _, count in settings.schedule)
            for slots in in_flight:
                other = results(table, replace(settings, mode="async"), slots, seeds)
                compare(sync, other, f"{slots} of {total:,} in flight, learning rate {rate}")
    print(
        f"utilisation async {found['async']:.2f} % (aim 97), sync {found['sync']:.2f} %; "
        f"took {time.perf_counter() - begun:.0f} s"
    )


if __name__ == "__main__":
    main()
