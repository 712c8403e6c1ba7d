"""A search's Pareto fronts as one picture."""

from collections.abc import Sequence
from operator import attrgetter

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.candidates.front import COSTS, Point, fronts
from evaluation.plots.style import (
    BEST_COLOUR,
    DOT_COLOUR,
    WIDTH,
    cost_axis,
    frame,
    legend,
    pareto_steps,
    side_by_side,
)


def draw_fronts(points: Sequence[Point], width: float = WIDTH) -> Figure:
    """Held-out accuracy against cost, one panel for each known cost; steps are the Pareto front.

    A picture narrower than usual (`width`, inches) has its panels one below the other.

    Raises `ValueError` without points.
    """
    if not points:
        raise ValueError("there is nothing to draw: no block was trained")
    found = fronts(points)
    figure, panels = side_by_side(len(found), 4.0, width, top=0.32, bottom=0.6, wspace=0.1)
    beside = width >= WIDTH
    for axes, (name, front) in zip(panels, found.items(), strict=True):
        first = axes is panels[0]
        frame(axes, COSTS[name], "held-out accuracy (%)" if first or not beside else "")
        if not first:
            axes.sharey(panels[0])
            axes.tick_params(labelleft=not beside)
        _draw(axes, points, name, front)
    # above the panel, where no block lies
    legend(panels[0], loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2)
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
    steps = [(cost(point), point.accuracy) for point in front]
    pareto_steps(axes, steps, high, linewidth=1.6, color=BEST_COLOUR)
    axes.plot(*zip(*steps, strict=True), "o", color=BEST_COLOUR, markersize=4.5)
    cost_axis(axes, low, high)
