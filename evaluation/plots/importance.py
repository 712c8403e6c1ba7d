"""What goes with the accuracy of a search's networks, as bars."""

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from evaluation.candidates.importance import Importances
from evaluation.plots.style import BEST_COLOUR, MEAN_COLOUR, blank, frame, legend

SHOWN = 12
"""Most bars."""


def draw_importances(found: Importances) -> Figure:
    """A bar a property, what matters most above, coloured by whether more of it goes with more
    accuracy; lines are the standard deviation.
    """
    shown = list(reversed(found.of[:SHOWN]))
    figure = blank(
        0.9 + 0.3 * len(shown), left=0.27, top=0.97, bottom=0.55 / (0.9 + 0.3 * len(shown))
    )
    axes = figure.subplots()
    frame(axes, "percent of accuracy that predictions are further off without it", "")
    axes.barh(
        [each.name for each in shown],
        [max(0.0, each.points) for each in shown],
        xerr=[each.spread for each in shown],
        color=[BEST_COLOUR if each.rises else MEAN_COLOUR for each in shown],
        error_kw={"elinewidth": 0.8, "ecolor": "#616e7c"},
        height=0.6,
    )
    axes.set_xlim(left=0.0)
    axes.grid(visible=False, axis="y")
    handles = [Patch(color=BEST_COLOUR, label="more of it, more accuracy")]
    handles.append(Patch(color=MEAN_COLOUR, label="more of it, less accuracy"))
    legend(axes, handles=handles, loc="lower right")
    return figure
