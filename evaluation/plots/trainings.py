"""The report's plots: accuracy against cost, training curves, calibration, a frozen search."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from evaluation.plots.style import (
    BEST_COLOUR,
    FAINT,
    INK,
    MEAN_COLOUR,
    RULE,
    WIDTH,
    plain_count,
    shortened,
    style_of,
)
from evaluation.results import Network, Record

FEW = 10
"""Images below which a bar of the calibration says little, and is pale."""

Curve = Sequence[Mapping[str, float]]


def accuracy_against_cost(networks: Sequence[Network], front: Sequence[Network]) -> Figure:
    """Test accuracy (mean, bars of one standard deviation) against multiply-accumulates, with the
    Pareto front as steps."""
    figure = Figure(figsize=(WIDTH, 4.4), facecolor="white")
    axes = figure.subplots()
    figure.subplots_adjust(left=0.085, right=0.975, top=0.95, bottom=0.14)
    _frame(axes, "multiply-accumulates of one image", "test accuracy (%)")
    tested = [network for network in networks if network.accuracy is not None]
    axes.set_xscale("log")
    costs = [network.macs for network in tested]
    low, high = min(costs) / 1.6, max(costs) * 2.4
    axes.set_xlim(low, high)
    named = FuncFormatter(lambda value, _: plain_count(value))
    axes.xaxis.set_major_formatter(named)
    few = high / low < 100
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    reach = [(n.accuracy or 0) - (n.std or 0) for n in tested]
    reach += [(n.accuracy or 0) + (n.std or 0) for n in tested]
    room = max(0.12 * (max(reach) - min(reach)), 0.25)
    axes.set_ylim(min(reach) - room, min(max(reach) + room, 100 + room / 2))
    steps = [*((n.macs, n.accuracy or 0) for n in front), (high, front[-1].accuracy or 0)]
    axes.step(
        [x for x, _ in steps],
        [y for _, y in steps],
        where="post",
        color=BEST_COLOUR,
        linewidth=1.4,
        alpha=0.75,
        label="Pareto front",
        zorder=1,
    )
    members = {id(network) for network in front}
    for network in tested:
        colour = BEST_COLOUR if id(network) in members else MEAN_COLOUR
        axes.errorbar(
            network.macs,
            network.accuracy or 0,
            yerr=network.std,
            fmt="o",
            color=colour,
            markersize=6.5,
            elinewidth=1.2,
            capsize=3,
            zorder=3,
        )
    _name_points(figure, axes, tested)
    axes.legend(loc="lower right", fontsize=9, frameon=False, labelcolor=INK)
    return figure


def _name_points(figure: Figure, axes: Axes, networks: Sequence[Network]) -> None:
    """Each name right of its point, moved up or down where another one stands."""
    places = [axes.transData.transform((n.macs, n.accuracy or 0)) for n in networks]
    height = 9.0 / 72 * figure.dpi * 1.35
    taken: list[tuple[float, float, float]] = []
    for i in sorted(range(len(networks)), key=lambda i: -places[i][1]):
        (x, y), name = places[i], shortened(networks[i].label)
        start, end = x + 7 / 72 * figure.dpi, x + (9 + 6.0 * len(name)) / 72 * figure.dpi
        free = y
        for step in (0, 1, -1, 2, -2, 3, -3, 4, -4):
            free = y + step * height * 0.95
            if all(abs(free - b) >= height * 0.9 or end < a or start > c for a, b, c in taken):
                break
        taken.append((start, free, end))
        axes.annotate(
            name,
            (networks[i].macs, networks[i].accuracy or 0),
            (9, (free - y) / figure.dpi * 72),
            textcoords="offset points",
            va="center",
            size=9,
            color=INK,
            parse_math=False,
            path_effects=[withStroke(linewidth=3, foreground="#ffffff")],
            zorder=2,  # no name may hide another point
        )


def training_curves(networks: Sequence[Network]) -> Figure:
    """Loss and training accuracy by epoch: the mean over a network's seeds, from the lowest to the
    highest shaded."""
    figure = Figure(figsize=(WIDTH, 4.2), facecolor="white")
    left, right = figure.subplots(1, 2)
    _place(figure, len(networks), 0.075, 4.2)
    _frame(left, "epoch", "training loss")
    _frame(right, "epoch", "training accuracy (%)")
    for number, network in enumerate(networks):
        curves = [result["curve"] for result in network.results if result["curve"]]
        _draw(left, curves, "loss", network.label, style_of(number))
        _draw(right, curves, "train_accuracy", network.label, style_of(number))
    losses = _values(left)
    if losses and min(losses) > 0 and max(losses) > 30 * min(losses):
        left.set_yscale("log")
        left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        left.yaxis.set_minor_formatter(NullFormatter())
    _limits(right)
    _legend(figure, left)
    return figure


def held_out_curves(contenders: Sequence[tuple[str, Curve]]) -> Figure:
    """Held-out accuracy by epoch of the selection's trainings, by name."""
    figure = Figure(figsize=(WIDTH, 3.9), facecolor="white")
    axes = figure.subplots()
    _place(figure, len(contenders), 0.085, 3.9)
    _frame(axes, "epoch", "held-out accuracy (%)")
    for number, (name, curve) in enumerate(contenders):
        _draw(axes, [curve], "accuracy", name, style_of(number))
    _limits(axes)
    _legend(figure, axes)
    return figure


def reliability(bins: Sequence[Record]) -> Figure:
    """Accuracy against confidence, above how many images have it; the diagonal is perfect."""
    figure = Figure(figsize=(5.0, 4.6), facecolor="white")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    figure.subplots_adjust(left=0.15, right=0.96, top=0.97, bottom=0.12, hspace=0.1)
    _frame(above, "", "accuracy (%)")
    _frame(below, "confidence (%)", "images (%)")
    filled = [found for found in bins if found["images"]]
    total = sum(found["images"] for found in filled)
    width = 100 / len(bins)
    middles = [(found["low"] + found["high"]) / 2 for found in filled]
    heights = [found["accuracy"] for found in filled]
    bars = above.bar(middles, heights, width=0.88 * width, color=MEAN_COLOUR, alpha=0.85)
    for bar, found in zip(bars, filled, strict=True):
        if found["images"] < FEW:
            bar.set_alpha(0.25)
    above.plot([0, 100], [0, 100], color=BEST_COLOUR, linewidth=1.4)
    above.set(xlim=(0, 100), ylim=(0, 104))
    shares = [100 * found["images"] / total for found in filled]
    below.bar(middles, shares, width=0.88 * width, color="#7ba4d1")
    figure.align_ylabels()
    return figure


def frozen_search(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Mean and best so far by iteration, of a search of which only these are kept."""
    figure = Figure(figsize=(WIDTH, 5.2), facecolor="white")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    figure.subplots_adjust(left=0.085, right=0.975, top=0.97, bottom=0.17, hspace=0.08)
    for axes, name, label in (
        (above, "accuracy", "held-out accuracy (%)"),
        (below, "reward", "reward"),
    ):
        _frame(axes, "", label)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        numbers = [row["iteration"] for row in rows]
        line: dict[str, Any] = {"linewidth": 1.8, "marker": "o" if len(rows) <= 40 else ""}
        for kind, colour, words in (
            ("best", BEST_COLOUR, "best so far"),
            ("mean", MEAN_COLOUR, "mean of the iteration"),
        ):
            values = [row[f"{kind}_{name}"] for row in rows]
            axes.plot(numbers, values, color=colour, label=words, markersize=4.0, **line)
    below.set_xlabel("iteration", color=INK)
    _legend(figure, above)
    return figure


def _draw(
    axes: Axes, curves: Sequence[Curve], name: str, label: str, style: Mapping[str, Any]
) -> None:
    by_epoch: dict[float, list[float]] = {}
    for curve in curves:
        for entry in curve:
            if entry.get(name) is not None:
                by_epoch.setdefault(entry["epoch"], []).append(entry[name])
    if not by_epoch:
        return
    epochs = sorted(by_epoch)
    marker = "o" if len(epochs) == 1 else ""
    means = [fmean(by_epoch[epoch]) for epoch in epochs]
    axes.plot(
        epochs, means, label=shortened(label), linewidth=1.7, marker=marker, markersize=4, **style
    )
    if len(curves) > 1:
        lows = [min(by_epoch[epoch]) for epoch in epochs]
        highs = [max(by_epoch[epoch]) for epoch in epochs]
        axes.fill_between(epochs, lows, highs, color=style["color"], alpha=0.16, linewidth=0)


def _values(axes: Axes) -> list[float]:
    """All that the lines of a plot show."""
    return [float(v) for line in axes.get_lines() for v in np.asarray(line.get_ydata())]


def _limits(axes: Axes) -> None:
    """Shows the end large: the lowest of the first epochs may fall below the picture."""
    values = sorted(_values(axes))
    if len(values) < 20:
        return
    low, high = values[len(values) // 25], values[-1]
    room = 0.06 * (high - low) if high - low > 1 else 0.5
    axes.set_ylim(low - room, min(high + room, 100 + room / 2))


def _frame(axes: Axes, x: str, y: str) -> None:
    axes.set_facecolor("none")
    axes.set_xlabel(x, color=INK, fontsize=10)
    axes.set_ylabel(y, color=INK, fontsize=10)
    axes.tick_params(labelsize=9, color=FAINT, labelcolor=INK, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    if x == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        axes.margins(x=0.02)


def _rows(count: int) -> int:
    return max(1, -(-min(count, 24) // 4))


def _place(figure: Figure, count: int, left: float, height: float) -> None:
    """Room for so many names below the axes."""
    bottom = (0.62 + 0.22 * _rows(count)) / height
    figure.subplots_adjust(left=left, right=0.975, top=0.96, bottom=bottom, wspace=0.2)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    legend = figure.legend(
        handles[:24],
        labels[:24],
        loc="lower center",
        ncols=min(4, len(handles)),
        fontsize=9,
        frameon=False,
        labelcolor=INK,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
