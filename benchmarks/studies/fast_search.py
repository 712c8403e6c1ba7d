"""How many trainings profile `paper-faster` needs for what a full search finds.

    python -m benchmarks.studies.fast_search [--quick] [--to DIR]

Whole searches (ask, tell, agent, journal, early stopping) on the table of networks trained on
CIFAR-10 (benchmarks/studies/block_table.py): nothing is trained again, and a training that is
stopped early is cut there. Three searches are full: every block of the table, whose best reward is
the highest there is; the 2018 agent with the paper's schedule of 178 iterations of 64; and the
agent and schedule of profile `paper-small`. Seed by seed profile `paper-faster`, its schedule
prolonged, goes on until a training that was not stopped has the best reward of each; what it began
is counted, stopped trainings too. Written are fast.csv and the table of fast.md between its marks.
Takes some minutes on one core.
"""

import argparse
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

from benchmarks import machine
from benchmarks.__main__ import commit
from benchmarks.studies.block_table import SPACE, place, read_table, table_settings
from benchmarks.studies.pages import RESULTS, put, write_rows
from blockqnn.params import load_settings
from blockqnn.search import Search
from blockqnn.search.outcome import Outcome
from blockqnn.settings import Settings
from blockqnn.space import Block
from blockqnn.surrogate import CertainlyBad, StoppingRule
from evaluation.comparison.block_tables import BlockBenchmark, Table, every_block
from evaluation.comparison.significance import half_width

ROOT = Path(__file__).parents[2]
SEEDS = 20
FULL = ("paper", "paper-small")
"""Profiles whose agent and schedule make a full search."""
TABLE = "every block"
LONG = ((1.0, 2), (0.0, 100))
"""The schedule of `paper-faster` until nothing is left to find."""


class Row(NamedTuple):
    """One seed: a full search's trainings and its best reward; and what `paper-faster` began until
    it had it: trainings, trainings that were stopped, and epochs.
    """

    full: str
    seed: int
    trainings: int
    reward: float
    fast: int
    stopped: int
    epochs: int


def settings(profile: str, images: Path, seed: int) -> Settings:
    """Agent, schedule and stopping of a profile, on the table's space and trainings."""
    trained = table_settings("cifar10")
    changes: dict[str, Any] = {
        "seed": seed,
        "reward.objective": "paper",  # the table's
        "budget.times_plain": None,
        "space.version": "v1",
        "space.max_index": SPACE.max_index,
        "space.max_width": None,
        "data": {"name": "folder", "root": str(images), "image_size": 32, "holdout": 0.5},
        "network.filters": list(trained.network.filters),
        "network.repeats": trained.network.repeats,
        "recipe.epochs": trained.recipe.epochs,
        "budget.memory": None,
        "tracking": False,
    }
    if profile == "paper-faster":
        changes["schedule"] = LONG
    return load_settings(ROOT / "params.yaml", profile, changes)


def write_images(root: Path) -> None:
    """Ten classes of grey images as large as CIFAR-10's: a search asks for some, nobody looks."""
    for number in range(10):
        directory = root / str(number)
        directory.mkdir(parents=True)
        for copy in range(4):
            shade = 10 * number + copy
            Image.new("RGB", (32, 32), (shade, shade, shade)).save(directory / f"{copy}.png")


def trained(table: Table, block: Block, rule: StoppingRule | None) -> Outcome:
    """What the block's training came to, or would have, stopped by the rule."""
    outcome = table.outcome(block)
    if rule is None or outcome.kind != "trained":
        return outcome
    for epochs in range(1, len(outcome.curve)):
        try:
            rule.judge(outcome.curve[:epochs])
        except CertainlyBad as error:
            return replace(
                outcome,
                kind="stopped",
                accuracy=None,
                predicted=error.predicted,
                curve=outcome.curve[:epochs],
                reason=str(error),
            )
    return outcome


class Step(NamedTuple):
    """After a training: how many were begun, how many of them were stopped, their epochs, and the
    best reward of those that were not stopped.
    """

    begun: int
    stopped: int
    epochs: int
    best: float


def course(table: Table, wanted: Settings) -> Iterator[Step]:
    """A search, training by training."""
    step = Step(0, 0, 0, -np.inf)
    with (
        tempfile.TemporaryDirectory() as directory,
        Search.open(directory, wanted) as search,
    ):
        while (candidate := search.ask()) is not None:
            outcome = trained(table, candidate.block, search.stopping_rule(candidate))
            search.tell(candidate, outcome)
            best = search.best(1)
            step = Step(
                step.begun + 1,
                step.stopped + (outcome.kind == "stopped"),
                step.epochs + len(outcome.curve),
                best[0].reward if best else step.best,
            )
            yield step


def compare(table: Table, images: Path, seeds: int, full: Iterable[str] = FULL) -> list[Row]:
    """Every full search against `paper-faster`, seed by seed."""
    blocks = {block.key: block for block in every_block(SPACE)}
    highest = BlockBenchmark(table, place("cifar10")).about.best
    assert highest is not None
    rows = []
    for seed in range(seeds):
        ends = {TABLE: Step(len(blocks), 0, 0, highest)}
        ends |= {name: list(course(table, settings(name, images, seed)))[-1] for name in full}
        steps: list[Step] = []
        for step in course(table, settings("paper-faster", images, seed)):
            steps.append(step)
            if step.best >= highest:
                break
        for name, end in ends.items():
            # The rewards of a search and of the table come from the same sums in the same order.
            reached = next((step for step in steps if step.best >= end.best), None)
            if reached is None:
                raise SystemExit(
                    f"seed {seed}: paper-faster never had {end.best}, which {name} has"
                )
            rows.append(Row(name, seed, end.begun, end.best, *reached[:3]))
        of = rows[-len(ends) :]
        print(f"seed {seed}: " + ", ".join(f"{r.full} {r.fast} of {r.trainings}" for r in of))
    return rows


def tables(rows: list[Row]) -> str:
    """Markdown: a line a full search."""
    lines = [
        "| full search | its trainings | best reward | `paper-faster` began | stopped | epochs "
        "| share of trainings |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    names = {TABLE: f"{TABLE} of the table"} | {
        name: f"Q-learning, schedule of profile `{name}`" for name in FULL
    }
    for full, name in names.items():
        of = [row for row in rows if row.full == full]
        shares = [100 * row.fast / row.trainings for row in of]
        fast = np.array([row.fast for row in of])
        lines.append(
            f"| {name} | {np.mean([row.trainings for row in of]):.0f} "
            f"| {np.mean([row.reward for row in of]):.2f} "
            f"| {fast.mean():.0f} ± {half_width(fast):.0f} ({fast.min()} to {fast.max()}) "
            f"| {np.mean([row.stopped for row in of]):.0f} "
            f"| {np.mean([row.epochs for row in of]):.0f} "
            f"| {np.mean(shares):.1f} ± {half_width(shares):.1f} % |"
        )
    return "\n".join(lines)


def main() -> None:
    """Compare, write, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one seed and search, into nowhere")
    parser.add_argument("--to", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, threadpool_limits(1):
        images = Path(directory)
        write_images(images)
        of = (1, ["paper-small"]) if options.quick else (SEEDS, FULL)
        rows = compare(read_table("cifar10"), images, *of)
    if options.quick:
        return
    write_rows(options.to / "fast.csv", Row._fields, rows)
    text = tables(rows)
    put(
        options.to / "fast.md", "fast", f"{machine.describe()}; {commit()}; {SEEDS} seeds\n\n{text}"
    )
    print(text)


if __name__ == "__main__":
    main()
