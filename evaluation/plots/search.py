"""The learning curve of a search, in the manner of the paper's figure 8a."""

from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from blockqnn.search.history import History
from blockqnn.search.outcome import Kind
from blockqnn.storage import write_atomically
from evaluation.candidates.iterations import Iteration, iterations_of
from evaluation.plots.style import (
    DOT_COLOUR,
    FAILED_COLOUR,
    FAINT,
    INK,
    MARKED,
    WIDTH,
    best_and_mean,
    blank,
    frame,
    legend,
    level_lines,
    shortened,
    whole_numbers,
)

BANDS = ("#ffffff", "#edf1f5")
"""Colours of the phases of epsilon, in turn."""
LEGEND_COLUMNS = 3
NARROW = 0.03
"""Share of the width below which only every second phase has a label; up to twice as wide the label
is the number alone, without "ε ="."""


def draw_search(history: History, path: Path) -> None:
    """Draw a search's learning curve to `path`, PNG or SVG, titled with the directory's name.

    Raises `ValueError` for another suffix and OSError when the file cannot be written.
    """
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"cannot draw to {path}: the name must end in .png or .svg")
    figure = learning_curve(history, path.resolve().parent.name)
    suffix = path.suffix[1:]
    write_atomically(path, lambda file: figure.savefig(file, format=suffix, dpi=140))


def learning_curve(history: History, name: str, width: float = WIDTH) -> Figure:
    """Accuracy (above) and reward (below) against the iteration of the search `name`.

    Each panel has the iteration's mean, the best so far and a dot for each candidate, an empty one
    where the training was stopped and the numbers are predictions, a triangle for one that was
    trained further; shaded bands are the phases of epsilon.
    """
    iterations = iterations_of(history.results, history.task.chance)
    columns = LEGEND_COLUMNS if width >= WIDTH else 1
    figure = blank(6.2, width, top=0.845, bottom=0.13, hspace=0.08)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    _write_title(figure, history, name)
    _draw_panel(above, iterations, [i.accuracies for i in iterations], "held-out accuracy (%)")
    _draw_panel(below, iterations, [i.rewards for i in iterations], "reward")
    below.set_xlabel("iteration", color=INK)
    if history.settings.agent.kind == "q_learning":
        _draw_phases(above, below, iterations)
    if any(i.not_trained for i in iterations):
        _mark_not_trained(above, iterations, history.task.chance)
    if iterations:
        handles, labels = above.get_legend_handles_labels()
        rows = -(-len(handles) // columns)
        figure.subplots_adjust(bottom=0.1 + 0.03 * rows)
        where: dict[str, Any] = {"ncols": columns, "loc": "lower center"}
        figure.legend(handles, labels, **where, fontsize=9, frameon=False)
        below.set_xlim(iterations[0].number - 0.5, iterations[-1].number + 0.5)
    return figure


def summary_curve(rows: Sequence[Mapping[str, float]], width: float = WIDTH) -> Figure:
    """Mean and best so far by iteration, of a search of which only the rows of iterations.csv are
    kept."""
    figure = blank(5.2, width, top=0.97, bottom=0.17, hspace=0.08)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    numbers = [row["iteration"] for row in rows]
    for axes, name, label in (
        (above, "accuracy", "held-out accuracy (%)"),
        (below, "reward", "reward"),
    ):
        frame(axes, "iteration" if axes is below else "", label)
        whole_numbers(axes)
        best, means = ([row[f"{kind}_{name}"] for row in rows] for kind in ("best", "mean"))
        best_and_mean(axes, numbers, best, means)
    handles, labels = above.get_legend_handles_labels()
    legend(figure, loc="lower center", handles=handles, labels=labels, ncols=len(handles))
    return figure


def _write_title(figure: Figure, history: History, name: str) -> None:
    results = history.results
    distinct = len({result.candidate.key for result in results})
    counts = f"{_count(len(results), 'candidate')}, {_count(distinct, 'distinct block')}"
    narrow = figure.get_figwidth() < WIDTH
    about = counts if narrow else f"{history.task.data}   ·   {counts}"
    left = 0.02 if narrow else figure.subplotpars.left
    text: dict[str, Any] = {"ha": "left", "parse_math": False}
    title = shortened(name, 32 if narrow else 56)
    figure.text(left, 0.945, title, size=13, weight="bold", color=INK, **text)
    figure.text(left, 0.91, about, size=9.5, color=FAINT, **text)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _draw_panel(
    axes: Axes, iterations: Sequence[Iteration], values: Sequence[Sequence[float]], label: str
) -> None:
    axes.set_ylabel(label, color=INK)
    axes.tick_params(labelsize=9, color=FAINT)
    level_lines(axes)
    whole_numbers(axes)
    if not iterations:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no results yet", ha="center", color=FAINT, transform=axes.transAxes)
        return
    numbers = [i.number for i in iterations]
    pairs = list(zip(iterations, values, strict=True))
    means = [fmean(i.first(group)) for i, group in pairs]
    best = list(accumulate((i.best(group) for i, group in pairs), max))
    dots = [dot for i, group in pairs for dot in _dots(i, group, "trained")]
    further = [dot for i, group in pairs for dot in _dots(i, group, "trained", further=True)]
    predicted = [dot for i, group in pairs for dot in _dots(i, group, "stopped")]
    size = 12.0 if len(dots) + len(further) + len(predicted) < 1000 else 2.5
    filled: dict[str, Any] = {"color": DOT_COLOUR, "alpha": 0.5, "linewidths": 0}
    axes.scatter([x for x, _ in dots], [y for _, y in dots], s=size, **filled)
    if further:
        label = f"{len(further):,} trained further"
        x, y = zip(*further, strict=True)
        axes.scatter(x, y, s=2 * size, marker="^", label=label, **filled)
    if predicted:
        label = f"{len(predicted):,} stopped, as predicted"
        empty: dict[str, Any] = {"facecolors": "none", "edgecolors": DOT_COLOUR, "linewidths": 0.7}
        x, y = zip(*predicted, strict=True)
        axes.scatter(x, y, s=size, label=label, **empty)
    mean = "mean of first trainings" if further else "mean of the iteration"
    best_and_mean(axes, numbers, best, means, mean)
    axes.set_ylim(*_limits(means, best, [y for _, y in [*dots, *further, *predicted]]))


def _dots(
    iteration: Iteration, values: Sequence[float], wanted: Kind, *, further: bool = False
) -> list[tuple[float, float]]:
    """Places of the wanted kind's candidates, on their first rung or on `further` ones; those of
    all kinds stand side by side in the order in which they were proposed."""
    step = 0.8 / len(values)
    first = iteration.number - 0.4 + step / 2
    return [
        (first + i * step, value)
        for i, (value, kind, rung) in enumerate(
            zip(values, iteration.kinds, iteration.rungs, strict=True)
        )
        if kind == wanted and (rung > 0) == further
    ]


def _limits(means: list[float], best: list[float], values: list[float]) -> tuple[float, float]:
    """Show the curves large: the lowest twentieth of the candidates may fall below the picture."""
    twentieth = quantiles(values, n=20)[0] if len(values) >= 20 else min(values, default=best[0])
    low, high = min([*means, twentieth]), best[-1]
    room = 0.06 * (high - low) if high - low > 1 else 1.0
    return low - room, high + room


def _draw_phases(above: Axes, below: Axes, iterations: Sequence[Iteration]) -> None:
    first, last = (iterations[0].number, iterations[-1].number) if iterations else (0, 0)
    narrow_before = False
    for phase, (epsilon, group) in enumerate(groupby(iterations, key=lambda i: i.epsilon)):
        members = list(group)
        start, end = members[0].number - 0.5, members[-1].number + 0.5
        for axes in (above, below):
            axes.axvspan(start, end, color=BANDS[phase % 2], zorder=-5, linewidth=0)
        narrow = end - start < NARROW * (last - first + 1)
        wide = end - start > 2 * NARROW * (last - first + 1)
        label = f"ε = {epsilon:g}" if wide else f"{epsilon:g}"
        crowded = narrow and narrow_before
        narrow_before = narrow and not crowded
        if not crowded:
            above.annotate(
                label,
                ((start + end) / 2, 1.0),
                (0, 4),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                size=8.5,
                color=FAINT,
            )


def _mark_not_trained(axes: Axes, iterations: Sequence[Iteration], chance: float) -> None:
    """Draw crosses along the lower edge, because chance lies far below the curves."""
    marked = [i for i in iterations if i.not_trained]
    total = sum(i.not_trained for i in marked)
    axes.scatter(
        [i.number for i in marked],
        [0.02] * len(marked),
        s=[
            (16.0 if len(iterations) <= MARKED else 6.0) * min(i.not_trained, 5) ** 0.5
            for i in marked
        ],
        marker="x",
        linewidths=0.9,
        color=FAILED_COLOUR,
        transform=axes.get_xaxis_transform(),
        label=f"{total:,} not trained, counted as {chance:.3g} % accurate",
    )
