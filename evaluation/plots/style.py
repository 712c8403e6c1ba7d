"""What all plots share: colours, frames, legends, and numbers short enough for an axis."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

BEST_COLOUR, MEAN_COLOUR, DOT_COLOUR, FAILED_COLOUR = "#c2571a", "#1f5fa8", "#7ba4d1", "#b83232"
INK, FAINT, RULE = "#1f2933", "#616e7c", "#d5dce3"
PALETTE = (MEAN_COLOUR, BEST_COLOUR, "#2f7d4f", "#7a52a8", "#15808a", "#94751a", "#a8447c", FAINT)
"""Colours of networks, in the order of the result table; beyond eight the dashes change."""
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
MARKERS = ("o", "s", "^")
"""Shapes of networks' points, which change with the dashes."""
WIDTH = 9.0
"""Width of a plot in inches."""
PHONE = 4.0
"""Width in inches of the same plot for a phone, where its letters keep their size."""
FEW_DECADES = 100.0
"""Highest over lowest cost up to which an axis has numbers between the powers of ten."""
MARKED = 40
"""Iterations up to which a search's curve has dots, so that a single iteration can be seen."""


def blank(
    height: float, width: float = WIDTH, *, left: float = 0.77, right: float = 0.22, **edges: float
) -> Figure:
    """An empty white figure. Height, width and the margins `left` and `right` are inches; `edges`
    are the shares of them that matplotlib's subplots_adjust takes."""
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.subplots_adjust(left=left / width, right=1 - right / width, **edges)
    return figure


def side_by_side(
    count: int, height: float, width: float, **edges: float
) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels side by side, or one below the other where it is narrow.

    `height` is that of one row in inches; `top` and `bottom` of `edges` are inches too.
    """
    top, bottom = edges.pop("top"), edges.pop("bottom")
    shape = (1, count) if width >= WIDTH else (count, 1)
    whole = top + bottom + shape[0] * (height - top - bottom) + (shape[0] - 1) * 0.6
    figure = blank(whole, width, top=1 - top / whole, bottom=bottom / whole, **edges)
    figure.subplots_adjust(hspace=0.6 / (height - top - bottom))
    return figure, list(figure.subplots(*shape, squeeze=False).flat)


def frame(axes: Axes, x: str, y: str) -> None:
    """Label the axes, with a faint border on the left and below, and level lines behind the data.

    Axes of epochs have whole numbers alone.
    """
    axes.set_facecolor("none")
    axes.set_xlabel(x, color=INK, fontsize=10)
    axes.set_ylabel(y, color=INK, fontsize=10)
    axes.tick_params(labelsize=9, color=FAINT, labelcolor=INK, which="both")
    axes.spines[["left", "bottom"]].set_color(FAINT)
    level_lines(axes)
    if x == "epoch":
        whole_numbers(axes)
        axes.margins(x=0.02)


def level_lines(axes: Axes) -> None:
    """Draw level lines behind the data instead of a border above and on the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def whole_numbers(axes: Axes) -> None:
    """Let the horizontal axis have whole numbers alone."""
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))


def cost_axis(axes: Axes, low: float, high: float) -> None:
    """Make the horizontal axis logarithmic from `low` to `high`, with numbers as 40 M."""
    axes.set(xscale="log", xlim=(low, high))
    subs = (1.0, 2.0, 5.0) if high / low < FEW_DECADES else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain_count(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def pareto_steps(axes: Axes, front: Sequence[tuple[float, float]], end: float, **line: Any) -> None:
    """Draw a Pareto front, (cost, accuracy) from the cheapest on, as steps up to the cost `end`."""
    x, y = zip(*front, (end, front[-1][1]), strict=True)
    axes.step(x, y, where="post", label="Pareto front", **line)


def best_and_mean(
    axes: Axes,
    numbers: Sequence[float],
    best: Sequence[float],
    means: Sequence[float],
    mean: str = "mean of the iteration",
) -> None:
    """Draw a search's best so far and the mean of each iteration, by the iteration's number."""
    marker = "o" if len(numbers) <= MARKED else ""
    line: dict[str, Any] = {"marker": marker, "markersize": 4.0, "linewidth": 1.8}
    axes.plot(numbers, best, color=BEST_COLOUR, label="best so far", **line)
    axes.plot(numbers, means, color=MEAN_COLOUR, label=mean, **line)


def legend(of: Axes | Figure, **where: Any) -> None:
    """Add a legend without a frame, in which names with dollar signs are no formulas."""
    drawn = of.legend(fontsize=9, frameon=False, labelcolor=INK, **where)
    for text in drawn.get_texts():
        text.set_parse_math(False)


def style_of(number: int) -> dict[str, Any]:
    """Colour and dashes of the network in a row of the table, from 0."""
    dashes = DASHES[number // len(PALETTE) % len(DASHES)]
    return {"color": PALETTE[number % len(PALETTE)], "linestyle": dashes}


def point_of(number: int) -> dict[str, Any]:
    """Colour and shape of the point of the network in a row of the table, from 0."""
    marker = MARKERS[number // len(PALETTE) % len(MARKERS)]
    return {"color": PALETTE[number % len(PALETTE)], "marker": marker}


def shortened(name: str, most: int = 28) -> str:
    """A name of at most so many characters, control characters as spaces."""
    clean = "".join(c if c.isprintable() else " " for c in name)
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def plain_count(value: float) -> str:
    """A count in three figures, as people write it: 1.25 G, 40 M, 250 k."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"
