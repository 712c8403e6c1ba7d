"""A search's Pareto fronts as one picture."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from evaluation.front import COSTS, Point, fronts
from evaluation.plots.style import BEST_COLOUR, DOT_COLOUR, FAINT, INK, RULE, WIDTH, plain_count

FEW_DECADES = 100.0
"""Highest over lowest cost up to which an axis has numbers between the powers of ten."""


def draw_fronts(points: Sequence[Point]) -> Figure:
    """Held-out accuracy against every known cost, a panel each: dots are blocks, steps the front.

    Raises `ValueError` without points.
    """
    if not points:
        raise ValueError("there is nothing to draw: no block was trained")
    found = fronts(points)
    figure = Figure(figsize=(WIDTH, 4.0), facecolor="white")
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    figure.subplots_adjust(left=0.085, right=0.975, top=0.92, bottom=0.15, wspace=0.1)
    for axes, (name, front) in zip(panels, found.items(), strict=True):
        _draw(axes, points, name, front)
    panels[0].set_ylabel("held-out accuracy (%)", color=INK, fontsize=10)
    beside = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2}
    panels[0].legend(**beside, fontsize=9, frameon=False, labelcolor=INK)  # no block lies there
    return figure


def _draw(axes: Axes, points: Sequence[Point], name: str, front: Sequence[Point]) -> None:
    members = {point.number for point in front}
    others = [point for point in points if point.number not in members]
    cost = attrgetter(name)
    costs = [cost(point) for point in points]
    low, high = min(costs) / 1.15, max(costs) * 1.15
    axes.scatter(
        [cost(point) for point in others],
        [point.accuracy for point in others],
        s=12.0 if len(points) < 1000 else 3.0,
        color=DOT_COLOUR,
        alpha=0.5,
        linewidths=0,
    )
    steps = [*((cost(p), p.accuracy) for p in front), (high, front[-1].accuracy)]
    line: dict[str, Any] = {"color": BEST_COLOUR, "linewidth": 1.6, "label": "Pareto front"}
    axes.step([x for x, _ in steps], [y for _, y in steps], where="post", **line)
    axes.plot(
        [cost(point) for point in front],
        [point.accuracy for point in front],
        "o",
        color=BEST_COLOUR,
        markersize=4.5,
    )
    axes.set(xscale="log", xlim=(low, high))
    subs = (1.0, 2.0, 5.0) if high / low < FEW_DECADES else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain_count(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(COSTS[name], color=INK, fontsize=10)
    axes.tick_params(labelsize=9, color=FAINT, labelcolor=INK, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
