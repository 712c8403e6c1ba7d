"""Which surrogate predicts accuracies best from few curves: the evidence for the default.

    python -m benchmarks.studies.surrogate_comparison [TABLE ...] [--quick] [--to DIR]

On the tables of benchmarks/studies/block_table.py each rival learns from 50, 100, 200, 300 and 400
curves drawn at random, as far as others are left, and predicts all others; a network has one block
there, since a block whose network was learned from is nothing to be predicted. Written are
surrogate.csv with every split, surrogate.png, and the tables of surrogate.md between its marks;
what is said around them is kept. Takes about half an hour on one core.
"""

import argparse
import csv
import time
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import kendalltau
from threadpoolctl import threadpool_limits

from benchmarks import machine
from benchmarks.__main__ import commit
from benchmarks.studies import neural_surrogates
from benchmarks.studies.block_table import blocks_of, read_table, table_settings
from benchmarks.studies.pages import RESULTS, put, write_rows
from benchmarks.studies.rival_surrogates import RIVALS, SURROGATE, Rival, Sample
from blockqnn.seeds import generator
from blockqnn.surrogate import Surrogate, block_features
from evaluation.comparison.block_tables import IMAGES

TABLES = ("digits-sample", "cifar10")
SIZES = (50, 100, 200, 300, 400)
HELD_OUT = 40
"""Fewest blocks by which a rival is judged."""
SPLITS = 10
WIDE = 1.6449
"""Standard deviations on either side of a normal distribution's mean between which lie 90 %."""
CURVE_ALONE = "curve alone"


class Row(NamedTuple):
    """One rival on one split; accuracies in percent, `seen` epochs of a held-out block's curve."""

    table: str
    rival: str
    curves: int
    seen: int
    split: int
    tau: float
    rmse: float
    rmse_all: float
    coverage: float
    fit_seconds: float


def read_sample(table: str) -> Sample:
    """One trained block a network; a table without curves has one epoch, the last."""
    outcomes = read_table(table)
    settings = table_settings(table)
    network, (classes, channels, pixels) = settings.network, IMAGES[settings.data.name]
    blocks = [
        block for block in blocks_of(table).values() if outcomes.outcome(block).kind == "trained"
    ]
    features = [
        block_features(
            block,
            network.cost(block, num_classes=classes, in_channels=channels, image_size=pixels),
        )
        for block in blocks
    ]
    trained = [outcomes.outcome(block) for block in blocks]
    curves = [[point["accuracy"] for point in o.curve] or [o.accuracy] for o in trained]
    return Sample(blocks, np.array(features), np.array(curves, float))


def judged(
    means: np.ndarray, deviations: np.ndarray, curves: np.ndarray
) -> tuple[float, float, float, float]:
    """Kendall's tau and RMSE at the last epoch, RMSE of all epochs, share in the 90 % interval."""
    errors = means - curves
    tau = kendalltau(means[:, -1], curves[:, -1]).statistic
    last = errors[:, -1]
    inside = np.abs(last) < WIDE * deviations[:, -1]
    return tau, np.sqrt(np.mean(last**2)), np.sqrt(np.mean(errors**2)), inside.mean()


def compare(table: str, sample: Sample, sizes: Iterable[int], splits: int) -> list[Row]:
    """Every rival on every split; the same splits for all."""
    rows = []
    for curves in (size for size in sizes if size + HELD_OUT <= len(sample.blocks)):
        for name, make in RIVALS.items():
            for split in range(splits):
                order = generator(0, "surrogate comparison", split).permutation(len(sample.blocks))
                learned, held_out = sample[order[:curves]], sample[order[curves:]]
                rival: Rival = make(split)
                begun = time.process_time()
                rival.fit(learned)
                seconds = time.process_time() - begun
                found = judged(*rival.predict(held_out), held_out.curves)
                rows.append(Row(table, name, curves, 0, split, *found, seconds))
                if name == SURROGATE:
                    rows += extrapolated(table, curves, split, learned, held_out)
            of = [row for row in rows if (row.rival, row.curves, row.seen) == (name, curves, 0)]
            print(f"{table:8} {curves:4} {name:17} tau {_mean(of, 'tau'):.3f}", flush=True)
    return rows


def extrapolated(
    table: str, curves: int, split: int, learned: Sample, held_out: Sample
) -> list[Row]:
    """The surrogate given the first epochs, and a line through the last one seen alone."""
    rows = []
    true = held_out.curves[:, -1:]
    surrogate = Surrogate().fit(learned.features, learned.curves)
    for seen in range(1, learned.curves.shape[1]):
        mean, deviation = surrogate.extrapolate(held_out.features, held_out.curves[:, :seen])
        found = judged(mean[:, None], deviation[:, None], true)
        rows.append(Row(table, SURROGATE, curves, seen, split, *found, 0.0))
        before, after = learned.curves[:, seen - 1], learned.curves[:, -1]
        line = np.polyfit(before, after, 1)
        deviation = np.full(len(true), (np.polyval(line, before) - after).std(ddof=2))
        mean = np.polyval(line, held_out.curves[:, seen - 1])
        found = judged(mean[:, None], deviation[:, None], true)
        rows.append(Row(table, CURVE_ALONE, curves, seen, split, *found, 0.0))
    return rows


def _values(rows: Iterable[Row], field: str) -> np.ndarray:
    return np.array([getattr(row, field) for row in rows])


def _mean(rows: Iterable[Row], field: str) -> float:
    return float(_values(rows, field).mean())


def _spread(rows: list[Row], field: str) -> str:
    values = _values(rows, field)
    digits = 3 if field == "tau" else 2
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1 if len(values) > 1 else 0):.{digits}f}"


def tables(rows: list[Row]) -> str:
    """Markdown of one data set."""
    lines = [
        "| curves | surrogate | splits | Kendall tau | RMSE, last epoch | RMSE, all epochs "
        "| in 90 % interval | fit, CPU s |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for curves in sorted({row.curves for row in rows}):
        of = {
            rival: [r for r in rows if (r.rival, r.curves, r.seen) == (rival, curves, 0)]
            for rival in RIVALS
        }
        lines += [
            f"| {curves} | {name} | {len(mine)} | {_spread(mine, 'tau')} | {_spread(mine, 'rmse')} "
            f"| {_mean(mine, 'rmse_all'):.2f} | {100 * _mean(mine, 'coverage'):.0f} % "
            f"| {_mean(mine, 'fit_seconds'):.2f} |"
            for name, mine in of.items()
        ]
    epochs = sorted({row.seen for row in rows})
    if len(epochs) > 1:
        lines += [
            "",
            "The last epoch's accuracy of a held-out block after its first epochs were seen:",
            "",
            "| curves | epochs seen | Kendall tau | RMSE | in 90 % interval | RMSE, curve alone |",
            "| ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for curves in sorted({row.curves for row in rows}):
            for seen in epochs:
                of, alone = (
                    [r for r in rows if (r.rival, r.curves, r.seen) == (rival, curves, seen)]
                    for rival in (SURROGATE, CURVE_ALONE)
                )
                other = f"{_mean(alone, 'rmse'):.2f}" if alone else ""
                lines.append(
                    f"| {curves} | {seen} | {_spread(of, 'tau')} | {_spread(of, 'rmse')} "
                    f"| {100 * _mean(of, 'coverage'):.0f} % | {other} |"
                )
    return "\n".join(lines)


def draw(rows: list[Row], path: Path) -> None:
    """Kendall's tau over the number of curves, a panel a data set; bands are one deviation."""
    names = list(dict.fromkeys(row.table for row in rows))
    figure = Figure(figsize=(5.2 * len(names), 4.7), layout="constrained")
    for axes, table in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for rival in RIVALS:
            sizes = sorted({row.curves for row in rows if row.table == table})
            taus = [
                _values([r for r in rows if (*r[:3], r.seen) == (table, rival, n, 0)], "tau")
                for n in sizes
            ]
            middle, spread = (np.array([f(t) for t in taus]) for f in (np.mean, np.std))
            (line,) = axes.plot(
                sizes, middle, marker="o", label=rival, linewidth=2.5 if rival == SURROGATE else 1.2
            )
            axes.fill_between(
                sizes, middle - spread, middle + spread, color=line.get_color(), alpha=0.12
            )
        axes.set(title=table, xscale="log", xlabel="learning curves learned from")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_ylabel("Kendall's tau on held-out blocks")
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=110)


def other_rows(path: Path, measured: set[str]) -> list[Row]:
    """What the file says of the tables that were not measured now."""
    if not path.exists():
        return []
    types = typing.get_type_hints(Row)
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Row(**{name: types[name](value) for name, value in row.items()})
            for row in csv.DictReader(file)
            if row["table"] in TABLES and row["table"] not in measured
        ]


def write(rows: list[Row], to: Path) -> None:
    """The numbers, the picture, and the tables in the text."""
    every = [*rows, *other_rows(to / "surrogate.csv", {row.table for row in rows})]
    every.sort(key=lambda row: TABLES.index(row.table))
    write_rows(to / "surrogate.csv", Row._fields, every)
    draw(every, to / "surrogate.png")
    for table in dict.fromkeys(row.table for row in rows):
        mine = tables([row for row in rows if row.table == table])
        put(to / "surrogate.md", table, f"{machine.describe()}; {commit()}\n\n{mine}")


def main() -> None:
    """Compare, write, and say who won."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tables", nargs="*", default=[], help="of block_table; both unless given")
    parser.add_argument("--quick", action="store_true", help="little of CIFAR-10, into nowhere")
    parser.add_argument("--to", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = options.tables or (["cifar10"] if options.quick else list(TABLES))
    sizes, splits = ((25,), 1) if options.quick else (SIZES, SPLITS)
    if options.quick:
        neural_surrogates.STEPS = 5  # that they run is all that is asked
    rows = []
    with threadpool_limits(1):
        for name in names:
            sample = read_sample(name)
            if options.quick:
                sample = sample[np.arange(0, len(sample.blocks), 5)]
            rows += compare(name, sample, sizes, splits)
    if not options.quick:
        write(rows, options.to)
    most = max(row.curves for row in rows)
    of = {rival: [r for r in rows if r[1:4] == (rival, most, 0)] for rival in RIVALS}
    best = max(of, key=lambda rival: _mean(of[rival], "tau"))
    print(
        f"tau of {SURROGATE} {_mean(of[SURROGATE], 'tau'):.3f} from {most} curves "
        f"(best {best} {_mean(of[best], 'tau'):.3f}), fitted in "
        f"{_mean(of[SURROGATE], 'fit_seconds'):.2f} s"
    )


if __name__ == "__main__":
    main()
