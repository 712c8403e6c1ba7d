"""What goes with the accuracy of a search's networks, as bars."""

from textwrap import fill

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from evaluation.candidates.importance import Importances
from evaluation.plots.style import BEST_COLOUR, MEAN_COLOUR, WIDTH, blank, frame, legend

SHOWN = 12
"""Most bars."""


def draw_importances(found: Importances, width: float = WIDTH) -> Figure:
    """A bar a property, what matters most above, coloured by whether more of it goes with more
    accuracy; lines are the standard deviation.
    """
    shown = list(reversed(found.of[:SHOWN]))
    wide = width >= WIDTH
    row, left, top, bottom = (0.3, 2.4, 0.1, 0.55) if wide else (0.38, 1.5, 0.5, 0.85)
    height = top + bottom + row * len(shown)
    figure = blank(height, width, left=left, top=1 - top / height, bottom=bottom / height)
    axes = figure.subplots()
    label = "percent of accuracy that predictions are further off without it"
    frame(axes, label if wide else fill(label, 28), "")
    axes.barh(
        [each.name if wide else fill(each.name, 20) for each in shown],
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
    if wide:
        legend(axes, handles=handles, loc="lower right")
    else:
        legend(figure, handles=handles, loc="upper left")
    return figure
