"""Which cheap training ranks networks of one cost as a whole one does: the evidence for the rungs.

    python -m benchmarks.studies.proxies [--data ROOT] [--search DIR] [--quick] [--to DIR]

The designs of benchmarks/data/matched-designs.jsonl, half of them random and half the best of a
search, all as long to train as block plain, are trained in every way of `WAYS` and, as the truth,
for ten epochs on 45,000 images of CIFAR-10. With --data (the official files under ROOT) what is
missing is trained, some hours on two cores, and kept in benchmarks/data/cifar10-proxies.jsonl,
where the same command goes on. --search writes the designs anew, from a search in DIR. Either way
proxies.png and the table of proxies.md between its marks are written; what is said around them is
kept.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from benchmarks import machine
from benchmarks.studies.many_trainings import Training, read_kept, train_many
from benchmarks.studies.pages import RESULTS, put
from blockqnn.cost.match import TOLERANCE
from blockqnn.params import load_plan, load_settings
from blockqnn.search.costs import Costs
from blockqnn.search.history import read_search
from blockqnn.seeds import generator
from blockqnn.settings import Settings
from blockqnn.space import Block, Shape, design_of
from blockqnn.space.shape import parts_of

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parents[1] / "data"
DESIGNS = DATA / "matched-designs.jsonl"
KEPT = DATA / "cifar10-proxies.jsonl"
HALF = 24
"""Random designs, and as many of a search."""
CHANCE = 10.0
RESAMPLES = 1000
Array = NDArray[np.float64]


class Way(NamedTuple):
    """How a network is trained: epochs, and images of the 45,000 (None for all)."""

    epochs: int
    images: int | None = None

    @property
    def words(self) -> str:
        """The training in words."""
        of = "all images" if self.images is None else f"{self.images:,} images"
        return f"{self.epochs} epoch{'s' * (self.epochs > 1)} on {of}"


TRUTH = Way(10)
WAYS = (
    Way(1, 5_000), Way(2, 5_000), Way(4, 5_000), Way(8, 5_000), Way(1, 10_000), Way(2, 10_000),
    Way(4, 10_000), Way(1, 20_000), Way(2, 20_000), Way(1), Way(2),
)  # fmt: skip
"""The sixth is the first rung of profile cifar10-laptop."""


class Design(NamedTuple):
    """A block, and the shape of its network with its filters."""

    block: Block
    shape: Shape

    @property
    def label(self) -> str:
        """Code, shape and filters."""
        filters = "-".join(map(str, self.shape.filters or ()))
        return f"{design_of(self.block, self.shape)}:{filters}"


def read_designs() -> list[Design]:
    """The designs of the file."""
    rows = map(json.loads, DESIGNS.read_text(encoding="utf-8").splitlines())
    return [Design(Block.parse(row["block"], 64), Shape.from_dict(row)) for row in rows]


def write_designs(search: Path) -> None:
    """Random designs of a search's space and its best ones, whose networks cost the same."""
    history = read_search(search)
    assert history.task is not None
    costs = Costs(history.settings, history.task, history.prices)
    target = costs.plain.seconds_an_image or 1.0
    space, rng = history.settings.designs, generator(0, "proxies", 0)
    found: dict[str, Design] = {}
    while len(found) < HALF:
        design = space.sample(rng)
        block, shape = parts_of(design)
        shape = costs.matched(block, shape)
        ratio = (costs.of(block, shape).seconds_an_image or 0.0) / target
        if abs(ratio - 1) <= TOLERANCE:
            found.setdefault(design.key, Design(block, shape))
    best = sorted(history.trainings, key=lambda result: -result.reward)
    for rung in range(len(history.settings.rungs), -1, -1):
        for result in best:
            candidate = result.candidate
            if candidate.rung == rung and len(found) < 2 * HALF:
                found.setdefault(candidate.key, Design(candidate.block, candidate.shape))
    with DESIGNS.open("w", encoding="utf-8") as file:
        for block, shape in found.values():
            file.write(json.dumps({"block": str(block), **shape.to_dict()}) + "\n")


def settings_of(way: Way, data: str) -> Settings:
    """Profile cifar10-laptop without rungs, trained in that way by the recipe `short`."""
    params = ROOT / "params.yaml"
    recipe = load_plan(params, "cifar10").recipe
    profile = load_settings(params, "cifar10-laptop", {"data.root": data})
    warm = 1 if way.epochs > 2 else 0
    recipe = replace(recipe, epochs=way.epochs, images=way.images, warmup_epochs=warm)
    return replace(profile, recipe=recipe, rungs=())


def trainings(designs: Sequence[Design], ways: Sequence[Way], data: str) -> list[Training]:
    """Every design in every way, design by design."""
    settings = {way: settings_of(way, data) for way in ways}
    return [
        Training(
            design.block,
            settings[way].shaped(design.shape),
            f"{way.words} | {design.label}",
        )
        for design in designs
        for way in ways
    ]


class Row(NamedTuple):
    """How a way's accuracies order the designs beside the truth, and what it takes."""

    way: Way
    spearman: float
    tau: float
    low: float
    """Lower end of tau's 95 % bootstrap interval over designs."""
    high: float
    regret: float
    """Accuracy lost by taking the way's best design, in percent of the truth's accuracy."""
    regret_of_five: float
    """The same where its five best are trained as in the truth."""
    seconds: float
    """Core seconds of one training, the median."""


def compare(accuracies: Mapping[Way, Array], seconds: Mapping[Way, float], draws: int) -> list[Row]:
    """A row a way; arrays have the shape (designs,)."""
    truth = accuracies[TRUTH]
    picks = generator(0, "proxies", 1).integers(len(truth), size=(draws, len(truth)))
    rows = []
    for way, scores in accuracies.items():
        if way == TRUTH:
            continue
        taus = [kendalltau(scores[pick], truth[pick]).statistic for pick in picks]
        low, high = np.nanpercentile(taus, [2.5, 97.5])
        order = np.argsort(-scores, kind="stable")
        rows.append(
            Row(
                way,
                float(spearmanr(scores, truth).statistic),
                float(kendalltau(scores, truth).statistic),
                float(low),
                float(high),
                float(truth.max() - truth[order[0]]),
                float(truth.max() - truth[order[:5]].max()),
                seconds[way],
            )
        )
    return rows


def table(rows: Sequence[Row], designs: int, truth: float) -> Iterator[str]:
    """Markdown; seconds of the truth for comparison."""
    yield f"{machine.describe()}; {designs} designs; the truth takes {truth:.0f} core seconds each."
    yield ""
    yield (
        "| training | core seconds | Spearman | Kendall tau | 95 % interval | its best, below the "
        "best | the best of its five |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for row in rows:
        yield (
            f"| {row.way.words} | {row.seconds:.0f} | {row.spearman:.2f} | {row.tau:.2f} | "
            f"{row.low:.2f} to {row.high:.2f} | {row.regret:.2f} | {row.regret_of_five:.2f} |"
        )


def draw(rows: Sequence[Row], path: Path) -> None:
    """Kendall's tau by seconds."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        ends = [[max(0.0, row.tau - row.low)], [max(0.0, row.high - row.tau)]]
        axes.errorbar(row.seconds, row.tau, ends, fmt="o", capsize=3, color="C0")
        axes.annotate(
            row.way.words, (row.seconds, row.tau), (5, 4), textcoords="offset points", size=7
        )
    axes.set(
        xscale="log", xlabel="core seconds of a training", ylabel="Kendall's tau with the truth"
    )
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Train what is missing if there are images, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="directory of the images: train what is missing")
    parser.add_argument("--search", type=Path, help="a search of which designs are taken")
    parser.add_argument("--quick", action="store_true", help="made-up accuracies, into nowhere")
    parser.add_argument("--to", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.quick:
        quick()
        return
    if options.search:
        write_designs(options.search)
    if not DESIGNS.exists():
        raise SystemExit("no designs are kept yet: give --search DIR of a search, and --data")
    designs, ways = read_designs(), (*WAYS, TRUTH)
    wanted = trainings(designs, ways, options.data or "data")
    if options.data:
        train_many(wanted, KEPT)
    kept = read_kept(KEPT)
    whole = [d for d in designs if all(f"{way.words} | {d.label}" in kept for way in ways)]
    found = {way: [kept[f"{way.words} | {d.label}"] for d in whole] for way in ways}
    accuracies = {
        way: np.array([CHANCE if each.accuracy is None else each.accuracy for each in outcomes])
        for way, outcomes in found.items()
    }
    seconds = {way: float(np.median([o.seconds for o in of])) for way, of in found.items()}
    rows = compare(accuracies, seconds, RESAMPLES)
    put(options.to / "proxies.md", "proxies", "\n".join(table(rows, len(whole), seconds[TRUTH])))
    draw(rows, options.to / "proxies.png")
    best = max(rows, key=lambda row: row.tau / row.seconds**0.2)
    print(f"{len(whole)} designs: tau {best.tau:.2f} of {best.way.words}")


def quick() -> None:
    """Accuracies of nobody's, one way in the order of the truth and one in the opposite order."""
    truth = np.linspace(80.0, 90.0, 12)
    accuracies = {WAYS[0]: truth - 30, WAYS[1]: -truth, TRUTH: truth}
    rows = compare(accuracies, dict.fromkeys(accuracies, 1.0), 20)
    with tempfile.TemporaryDirectory() as nowhere:
        draw(rows, Path(nowhere) / "proxies.png")
    same, opposite = rows
    print(
        f"made-up accuracies: tau {same.tau:.0f} and {opposite.tau:.0f}, the best of five "
        f"{same.regret_of_five:.2f} and {opposite.regret_of_five:.2f} below the best"
    )


if __name__ == "__main__":
    main()
