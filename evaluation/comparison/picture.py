"""A picture of what several agents have found after every evaluation."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from evaluation.comparison.agents import Unit
from evaluation.comparison.run import About
from evaluation.comparison.significance import half_width
from evaluation.plots.style import FAINT, blank, frame, legend, shortened, style_of

COLUMNS = 3
"""Names in a row of the legend below the picture."""
FIRST_SHOWN = 40
"""Curves begin at the budget divided by this, since the steep beginning would fill the picture."""


def draw_runs(values: Mapping[str, NDArray[np.float64]], about: About, unit: Unit) -> Figure:
    """Draw each agent's mean over seeds with its 95 % interval, by evaluation.

    `values` has the measure by the agent's label, of shape (seeds, budget).
    """
    entries = len(values) + (about.best is not None) + 1
    below = 0.62 + 0.22 * -(-entries // COLUMNS)
    height = 4.0 + below
    figure = blank(height, top=1 - 0.14 / height, bottom=below / height)
    axes = figure.subplots()
    for number, (label, rows) in enumerate(values.items()):
        budget = rows.shape[1]
        places = np.arange(1, budget + 1)
        mean, half = rows.mean(axis=0), half_width(rows)
        style = style_of(number)
        axes.plot(places, mean, label=shortened(label, 40), linewidth=1.8, **style)
        colour = style["color"]
        axes.fill_between(places, mean - half, mean + half, color=colour, alpha=0.16, linewidth=0)
    seeds = max(len(rows) for rows in values.values())
    begin = max(1, budget // FIRST_SHOWN)
    shown = np.concatenate([rows.mean(axis=0)[begin - 1 :] for rows in values.values()])
    top = shown.max() if about.best is None else about.best
    if about.best is not None:
        axes.axhline(top, color=FAINT, linewidth=1.0, linestyle=":", label="best there is")
    room = max(0.04 * (top - shown.min()), 1e-9)
    axes.set(ylim=(shown.min() - room, top + 2 * room), xscale="log", xlim=(begin, max(budget, 2)))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    frame(axes, f"{unit}, logarithmic", about.measured)
    band = Patch(color=FAINT, alpha=0.3, label=f"shaded: 95 % interval of the mean, {seeds} seeds")
    handles = [*axes.get_legend_handles_labels()[0], band]
    legend(figure, loc="lower center", handles=handles, ncols=min(COLUMNS, len(handles)))
    return figure
