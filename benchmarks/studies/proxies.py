"""Which short training ranks blocks as a longer one does: the evidence for profile `paper-faster`.

    python -m benchmarks.studies.proxies [--data ROOT] [--blocks N] [--quick] [--to DIR]

Random blocks of profile `paper-faster` are trained on CIFAR-10 in every way of `PROXIES`, and
longer, as `LONGER` says. With --data (the official files under ROOT) all of that is done, some
three hours on two cores, and the table of it written to benchmarks/data; what is done is kept under
runs/tables,
and the same command goes on there. Without, the table that is there is read. Either way
proxies.csv, proxies.png and the tables of proxies.md between its marks are written; what is said
around them is kept.
"""

import argparse
import csv
import gzip
import io
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from benchmarks import machine
from benchmarks.__main__ import commit
from benchmarks.studies.many_trainings import KEPT, Training, train_many
from benchmarks.studies.pages import RESULTS, put, write_rows
from blockqnn.cost import Cost
from blockqnn.params import load_settings
from blockqnn.reward import reward
from blockqnn.search.costs import over_budget
from blockqnn.search.outcome import Outcome
from blockqnn.seeds import generator
from blockqnn.settings import Settings
from blockqnn.space import Block

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).parents[1] / "data" / "cifar10-proxies.csv.gz"
COLUMNS = ("code", "training", "outcome", "accuracy", "restarts", "seconds", "curve")
BLOCKS = 64
CHANCE = 10.0
"""Accuracy in percent of guessing one of ten classes."""
RESAMPLES = 1000
TICKS = (0.25, 0.5, 1, 2, 5)
SLACK = 0.02
"""Loss of Kendall's tau that counts as none, since a proxy's own noise moves it by more."""
Array = NDArray[np.float64]


class Way(NamedTuple):
    """How a block is trained: epochs, images trained on, filters of the first stage, blocks a
    stage; judged on so many held-out images.
    """

    epochs: int = 4
    images: int = 4000
    filters: int = 8
    repeats: int = 1
    held_out: int = 1000

    @property
    def words(self) -> str:
        """The training in words."""
        return (
            f"{self.epochs} epoch{'s' * (self.epochs > 1)}, {self.images:,} images, filters from "
            f"{self.filters}, {self.repeats} block{'s' * (self.repeats > 1)} a stage"
        )

    @property
    def name(self) -> str:
        """The name of the training in tables."""
        return f"e{self.epochs} i{self.images} f{self.filters} n{self.repeats}"


LONGER = Way(epochs=10, images=5000, filters=16, held_out=4000)
PROXIES = (
    Way(),
    Way(epochs=2),
    Way(epochs=1),
    Way(images=2000),
    Way(images=1000),
    Way(images=1000, epochs=8),
    Way(images=2000, filters=4),
    Way(images=2000, filters=16),
    Way(images=2000, epochs=2, repeats=2),
)
"""The first is what profile `paper-faster` did before this was measured."""


def settings_of(way: Way, data: str | None) -> Settings:
    """Profile `paper-faster` but for the way."""
    where = {} if data is None else {"data.root": data}
    changes = {
        "data.images": way.images + way.held_out,
        "data.holdout": way.held_out / (way.images + way.held_out),
        "network.filters": [way.filters, 2 * way.filters, 4 * way.filters],
        "network.repeats": way.repeats,
        "recipe.epochs": way.epochs,
        "recipe.decay_epochs": 4 if way is LONGER else max(1, way.epochs // 2),
        "stopping.worse": 0.0,
        "budget.memory": None,
        "tracking": False,
    }
    return load_settings(ROOT / "params.yaml", "paper-faster", changes | where)


def cost_of(block: Block, settings: Settings) -> Cost:
    """The cost of the block's network on CIFAR-10."""
    network = settings.network
    return network.cost(block, num_classes=10, in_channels=3, image_size=32)


def drawn(count: int) -> list[Block]:
    """Random distinct blocks that the profile's budget allows in every way."""
    profile = load_settings(ROOT / "params.yaml", "paper-faster", {"budget.times_plain": None})
    # Not the profile's network, which this measurement may change: the blocks stay the same.
    drawn_for = [settings_of(way, None) for way in (*PROXIES, LONGER)]
    space = profile.space.build()
    rng = generator(0, "proxies", 0)
    found: dict[str, Block] = {}
    while len(found) < count:
        block = space.sample(rng)
        costs = [cost_of(block, settings) for settings in drawn_for]
        if not any(over_budget(cost, profile.budget, profile.recipe, cost) for cost in costs):
            found.setdefault(block.key, block)
    return list(found.values())


Outcomes = dict[tuple[str, str], Outcome]
"""Outcomes by the block's code and the way's name."""


def read_rows(path: Path) -> Outcomes:
    """What `write_rows` wrote; nothing where there is no file."""
    if not path.exists():
        return {}
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("# "))
    return {(row["code"], row["training"]): _outcome(row) for row in rows}


def _outcome(row: dict[str, str]) -> Outcome:
    accuracies = map(float, filter(None, row["curve"].split(";")))
    return Outcome(
        kind="trained" if row["outcome"] == "trained" else "diverged",
        accuracy=float(row["accuracy"]) if row["accuracy"] else None,
        curve=tuple({"epoch": e, "accuracy": a} for e, a in enumerate(accuracies, start=1)),
        restarts=int(row["restarts"]),
        seconds=float(row["seconds"]),
    )


def write_table(outcomes: Outcomes, path: Path) -> None:
    """The same rows give the same bytes, but for the provenance before them."""
    text = io.StringIO()
    settings = settings_of(LONGER, None).to_dict()
    settings["data"]["root"] = None  # where they lie on this machine is nobody's business
    used = {part: settings[part] for part in ("seed", "space", "data", "network", "recipe")}
    head = {
        "command": "python -m benchmarks.studies.proxies --data ROOT",
        "commit": commit().removeprefix("commit "),
        "machine": machine.describe(),
        "date": time.strftime("%Y-%m-%d"),
        "longer": json.dumps(used),
    }
    text.writelines(f"# {name}: {value}\n" for name, value in head.items())
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for (code, way), outcome in outcomes.items():
        accuracy = "" if outcome.accuracy is None else repr(outcome.accuracy)
        curve = ";".join(f"{entry['accuracy']:.2f}" for entry in outcome.curve)
        spent = f"{outcome.seconds:.3f}"
        rows.writerow([code, way, outcome.kind, accuracy, outcome.restarts, spent, curve])
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def train(blocks: list[Block], data: str) -> Outcomes:
    """Every block in every way; those in the table are not trained again."""
    known = read_rows(TABLE)
    # Block by block, so that what is done at any time is whole blocks.
    wanted = [(block, way) for block in blocks for way in (LONGER, *PROXIES)]
    missing = [pair for pair in wanted if (str(pair[0]), pair[1].name) not in known]
    trainings = [Training(block, settings_of(way, data)) for block, way in missing]
    found = train_many(trainings, KEPT / "proxies.jsonl")
    for (block, way), outcome in zip(missing, found, strict=True):
        known[str(block), way.name] = outcome
    return {(str(block), way.name): known[str(block), way.name] for block, way in wanted}


class Scores(NamedTuple):
    """Accuracies and rewards in percent, and core seconds, of all blocks trained in one way.

    Arrays have the shape (blocks,).
    """

    accuracy: Array
    reward: Array
    seconds: Array
    work: float
    """Multiply-accumulates of all training steps, forward and backward, in units of 1e12, mean."""


def scored(way: Way, blocks: Sequence[Block], outcomes: Outcomes) -> Scores:
    """The scores of all blocks. A block that was not trained has chance for both."""
    settings = settings_of(way, None)
    rows = []
    for block in blocks:
        outcome, cost = outcomes[str(block), way.name], cost_of(block, settings)
        accuracy = value = CHANCE
        if outcome.accuracy is not None:
            accuracy = outcome.accuracy
            value = reward(accuracy, macs=cost.macs, density=block.density)
        rows.append((accuracy, value, outcome.seconds, 3 * cost.macs * way.images * way.epochs))
    accuracies, rewards, seconds, work = np.array(rows).T
    return Scores(accuracies, rewards, seconds, work.mean() / 1e12)


class Agreement(NamedTuple):
    """How one score orders blocks beside the longer training's accuracy."""

    spearman: float
    tau: float
    low: float
    """Lower end of tau's 95 % bootstrap interval over blocks."""
    high: float
    """Upper end of tau's 95 % bootstrap interval over blocks."""
    less: float
    """Lower end of the 95 % interval of tau less the first proxy's tau, by the same resamples."""
    most: float
    """Upper end of the 95 % interval of tau less the first proxy's tau, by the same resamples."""
    regret: float
    """Accuracy lost by training longer only the score's five best blocks, in percent."""


def agreement(score: Array, first: Array, truth: Array, resamples: int) -> Agreement:
    """How a score agrees with the truth, compared with how the score `first` does."""
    rng = generator(0, "proxies", 1)
    picks = rng.integers(len(truth), size=(resamples, len(truth)))
    taus = np.array([_tau(score[pick], truth[pick]) for pick in picks])
    others = np.array([_tau(first[pick], truth[pick]) for pick in picks])
    low, high = np.percentile(taus, [2.5, 97.5])
    less, most = np.percentile(taus - others, [2.5, 97.5])
    top = np.argsort(-score, kind="stable")[:5]
    return Agreement(
        float(spearmanr(score, truth).statistic),
        _tau(score, truth),
        float(low),
        float(high),
        float(less),
        float(most),
        float(truth.max() - truth[top].max()),
    )


def _tau(one: Array, other: Array) -> float:
    return float(kendalltau(one, other).statistic)


class Row(NamedTuple):
    """A way, a score, how they agree with the longer training, and what the way costs."""

    way: Way
    score: str
    agreement: Agreement
    seconds: float
    work: float


def compare(blocks: Sequence[Block], outcomes: Outcomes, resamples: int = RESAMPLES) -> list[Row]:
    """Every way and score; the first ones' seconds are 1."""
    truth = scored(LONGER, blocks, outcomes).accuracy
    first = scored(PROXIES[0], blocks, outcomes)
    rows = []
    for way in (*PROXIES, LONGER):
        scores = scored(way, blocks, outcomes)
        # The median: a machine that pauses counts as seconds of whoever is in training.
        cost = float(np.median(scores.seconds / first.seconds)), scores.work
        for name in ("accuracy", "reward"):
            if way is LONGER and name == "accuracy":
                continue
            found = agreement(getattr(scores, name), first.accuracy, truth, resamples)
            rows.append(Row(way, name, found, *cost))
    epochs = PROXIES[0].epochs
    for seen in range(1, epochs):  # of the first way, stopped before the rate has fallen for good
        early = np.array([_seen(outcomes[str(block), PROXIES[0].name], seen) for block in blocks])
        rows.append(
            Row(
                PROXIES[0],
                f"accuracy after {seen} of {epochs} epochs",
                agreement(early, first.accuracy, truth, resamples),
                seen / epochs,
                first.work * seen / epochs,
            )
        )
    return rows


def _seen(outcome: Outcome, epochs: int) -> float:
    return float(outcome.curve[epochs - 1]["accuracy"]) if len(outcome.curve) >= epochs else CHANCE


def cheapest(rows: Sequence[Row]) -> Way:
    """The way of least seconds whose accuracy agrees as well as the first way's: its tau is at most
    `SLACK` lower, and the interval of the difference reaches zero.
    """
    good = [
        row
        for row in rows
        if row.score == "accuracy"
        and row.agreement.tau >= rows[0].agreement.tau - SLACK
        and row.agreement.most >= 0
    ]
    return min(good, key=lambda row: row.seconds).way


def tables(rows: Sequence[Row], blocks: int) -> str:
    """Markdown."""
    lines = [
        f"{machine.describe()}; {commit()}; {blocks} blocks",
        "",
        "| way | training | score | Spearman | Kendall tau | 95 % interval | tau less the first's "
        "| best of its five, below the best | seconds | 1e12 MACs |",
        "| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        a = row.agreement
        lines.append(
            f"| {_number(row.way)} | {row.way.words} | {row.score} "
            f"| {a.spearman:.2f} | {a.tau:.2f} | {a.low:.2f} to {a.high:.2f} "
            f"| {a.less:+.2f} to {a.most:+.2f} | {a.regret:.1f} "
            f"| {row.seconds:.2f} | {row.work:.2f} |"
        )
    way = cheapest(rows)
    lines += ["", f"The cheapest that agrees as well as the first: {way.words}."]
    return "\n".join(lines)


def _number(way: Way) -> int:
    """In tables and pictures; the longer one's is the last."""
    return (*PROXIES, LONGER).index(way) + 1


def draw(rows: Sequence[Row], blocks: Sequence[Block], outcomes: Outcomes, path: Path) -> None:
    """Kendall's tau against seconds; accuracies of the first way against longer-trained ones."""
    figure = Figure(figsize=(10.4, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, score in enumerate(("accuracy", "reward")):
        of = [row for row in rows if row.score == score]
        taus = np.array([row.agreement.tau for row in of])
        ends = np.array([(row.agreement.low, row.agreement.high) for row in of]).T
        shift = 1.02 ** (2 * number - 1)  # side by side
        places = [row.seconds * shift for row in of]
        left.errorbar(places, taus, np.abs(ends - taus), fmt="o", capsize=3, label=score)
        for row, place in zip(of, places, strict=True):
            if score == "accuracy":
                at = (place, row.agreement.tau)
                left.annotate(str(_number(row.way)), at, (4, 3), textcoords="offset points", size=9)
    left.set(xscale="log", xlabel="seconds of training, the first way's are 1")
    left.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    left.minorticks_off()
    left.set_ylabel("Kendall's tau with accuracy after longer training")
    left.legend(loc="lower right")
    truth = scored(LONGER, blocks, outcomes).accuracy
    first = scored(PROXIES[0], blocks, outcomes)
    right.plot(first.accuracy, truth, "o", markersize=4, label="accuracy")
    right.plot(first.reward, truth, "o", markersize=4, label="reward")
    right.set(xlabel="score of the first way (%)")
    right.set_ylabel("accuracy after longer training (%)")
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Train what is missing if there are images, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="directory of the images: train what is missing")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="only so many, the first ones")
    parser.add_argument("--quick", action="store_true", help="few resamples, into nowhere")
    parser.add_argument("--to", type=Path, default=RESULTS)
    options = parser.parse_args()
    blocks = drawn(options.blocks)
    if options.data is not None:
        outcomes = train(blocks, options.data)
        write_table(outcomes, TABLE)
    else:
        outcomes = read_rows(TABLE)
    whole = [
        block
        for block in blocks
        if all((str(block), way.name) in outcomes for way in (LONGER, *PROXIES))
    ]
    rows = compare(whole, outcomes, 20 if options.quick else RESAMPLES)
    if not options.quick:
        flat = [(row.way.name, row.score, *row.agreement, row.seconds, row.work) for row in rows]
        names = ("training", "score", *Agreement._fields, "seconds", "work")
        write_rows(options.to / "proxies.csv", names, flat)
        draw(rows, whole, outcomes, options.to / "proxies.png")
        put(options.to / "proxies.md", "proxies", tables(rows, len(whole)))
    base, chosen = rows[0], cheapest(rows)
    cost = next(row.seconds for row in rows if row.way == chosen)
    print(
        f"{len(whole)} blocks: tau of {base.way.name} {base.agreement.tau:.2f}; the cheapest as "
        f"good {chosen.name}, ratio {cost:.2f} of its seconds"
    )


if __name__ == "__main__":
    main()
