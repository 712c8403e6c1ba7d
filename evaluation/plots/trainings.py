"""Plots of final trainings: accuracy against cost, training curves, calibration."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, NullFormatter

from evaluation.plots.style import (
    BEST_COLOUR,
    DOT_COLOUR,
    FAINT,
    INK,
    MEAN_COLOUR,
    WIDTH,
    blank,
    cost_axis,
    frame,
    legend,
    pareto_steps,
    point_of,
    shortened,
    side_by_side,
    style_of,
)
from evaluation.results import Network, Record

FEW = 10
"""Images below which a bar of the calibration plot is pale, because it says little."""
MOST_NAMES = 24
"""Names in a legend below the axes; more networks are drawn without one."""

Curve = Sequence[Mapping[str, float]]


def accuracy_against_cost(
    networks: Sequence[Network], front: Sequence[Network], width: float = WIDTH
) -> Figure:
    """Test accuracy (mean, bars of one standard deviation) against multiply-accumulates, with the
    Pareto front as steps. Colours are those of the networks' rows in the table; a picture narrower
    than usual (`width`, inches) names the points below it."""
    wide = width >= WIDTH
    if wide:
        figure = blank(4.4, top=0.95, bottom=0.14)
    else:
        figure = _above_names(3.9, len(networks), width)
    axes = figure.subplots()
    frame(axes, "multiply-accumulates of one image", "test accuracy (%)")
    tested = [network for network in networks if network.accuracy is not None]
    costs = [network.macs for network in tested]
    low, high = min(costs) / 1.6, max(costs) * (2.4 if wide else 1.6)
    cost_axis(axes, low, high)
    reach = [(n.accuracy or 0) - (n.std or 0) for n in tested]
    reach += [(n.accuracy or 0) + (n.std or 0) for n in tested]
    room = max(0.12 * (max(reach) - min(reach)), 0.25)
    axes.set_ylim(min(reach) - room, min(max(reach) + room, 100 + room / 2))
    steps = [(n.macs, n.accuracy or 0) for n in front]
    pareto_steps(axes, steps, high, linewidth=1.4, zorder=1, color=FAINT)
    for number, network in enumerate(networks):
        if network.accuracy is None:
            continue
        axes.errorbar(
            network.macs,
            network.accuracy,
            yerr=network.std,
            label=shortened(network.label),
            linestyle="",
            markersize=6.5,
            elinewidth=1.2,
            capsize=3,
            zorder=3,
            **point_of(number),
        )
    if wide:
        _name_points(figure, axes, tested)
        legend(axes, loc="lower right", handles=axes.get_lines()[:1])
    else:
        _name_lines(figure, axes)
    return figure


def _name_points(figure: Figure, axes: Axes, networks: Sequence[Network]) -> None:
    """Write each network's name right of its point, moved up or down where another name stands."""
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


def training_curves(networks: Sequence[Network], width: float = WIDTH) -> Figure:
    """Loss and training accuracy by epoch: the mean over a network's seeds, from the lowest to the
    highest shaded. Below each other in a picture narrower than usual (`width`, inches)."""
    bottom = _room_for_names(len(networks), width)
    figure, (left, right) = side_by_side(
        2, 3.4 + bottom, width, top=0.17, bottom=bottom, wspace=0.2, left=0.7
    )
    frame(left, "epoch", "training loss")
    frame(right, "epoch", "training accuracy (%)")
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
    _name_lines(figure, left)
    return figure


def held_out_curves(
    contenders: Sequence[tuple[str, Sequence[Curve]]],
    numbers: Sequence[int] = (),
    width: float = WIDTH,
) -> Figure:
    """Held-out accuracy by epoch of the selection's blocks, given as pairs of a name and the curves
    of its seeds; `numbers` are those of their colours, from 0 on where none are given."""
    figure = _above_names(3.9, len(contenders), width)
    axes = figure.subplots()
    frame(axes, "epoch", "held-out accuracy (%)")
    for number, (name, curves) in zip(numbers or range(len(contenders)), contenders, strict=True):
        _draw(axes, curves, "accuracy", name, style_of(number))
    _limits(axes)
    _name_lines(figure, axes)
    return figure


def reliability(bins: Sequence[Record]) -> Figure:
    """Accuracy against confidence, and below it how many images have that confidence; the diagonal
    is perfect."""
    figure = blank(4.6, 5.0, left=0.75, right=0.2, top=0.97, bottom=0.12, hspace=0.1)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    frame(above, "", "accuracy (%)")
    frame(below, "confidence (%)", "images (%)")
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
    below.bar(middles, shares, width=0.88 * width, color=DOT_COLOUR)
    figure.align_ylabels()
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
    """All heights of the lines of a plot."""
    return [float(v) for line in axes.get_lines() for v in np.asarray(line.get_ydata())]


def _limits(axes: Axes) -> None:
    """Show the last epochs large: the lowest of the first may fall below the picture."""
    values = sorted(_values(axes))
    if len(values) < 20:
        return
    low, high = values[len(values) // 25], values[-1]
    room = 0.06 * (high - low) if high - low > 1 else 0.5
    axes.set_ylim(low - room, min(high + room, 100 + room / 2))


def _names_in_a_row(width: float) -> int:
    return 4 if width >= WIDTH else 2


def _room_for_names(count: int, width: float) -> float:
    """Inches below the axes for their label and so many names."""
    rows = max(1, -(-min(count, MOST_NAMES) // _names_in_a_row(width)))
    return 0.62 + 0.22 * rows


def _above_names(height: float, count: int, width: float) -> Figure:
    """An empty figure with room below the axes for so many names."""
    names = _room_for_names(count, width)
    if width < WIDTH:
        height += names - _room_for_names(count, WIDTH)
    return blank(height, width, top=0.96, bottom=names / height)


def _name_lines(figure: Figure, axes: Axes) -> None:
    handles, labels = (found[:MOST_NAMES] for found in axes.get_legend_handles_labels())
    if handles:
        columns = min(_names_in_a_row(figure.get_figwidth()), len(handles))
        legend(figure, loc="lower center", handles=handles, labels=labels, ncols=columns)
