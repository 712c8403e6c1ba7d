"""The files that a person opens after a search: tables, the learning curve, drawings of the best
blocks.
"""

from pathlib import Path

from blockqnn.search.history import History
from blockqnn.space import AS_SET
from blockqnn.storage import write_atomically
from evaluation.candidates.best_table import best_table, write_table
from evaluation.candidates.front import points_of, write_front
from evaluation.drawing import draw_block
from evaluation.plots.front import draw_fronts
from evaluation.plots.search import draw_search

BEST = 10
"""Best blocks in the tables."""
DRAWN = 3
"""Best blocks that are drawn."""


CURVE = "learning_curve.png"
"""File in a search's directory with its learning curve."""


def write_pictures(history: History, directory: Path, name: str) -> None:
    """Write best.md, best.csv, learning_curve.png, front.csv, front.png and best_1.png to
    best_3.png into `directory`. Raises OSError.
    """
    best = history.best(BEST)
    rows = best_table(best)
    for suffix in ("md", "csv"):
        write_table(rows, directory / f"best.{suffix}")
    draw_search(history, directory / CURVE)
    points = points_of(history)
    write_front(points, directory / "front.csv")
    if points:
        figure = draw_fronts(points)
        write_atomically(directory / "front.png", lambda file: figure.savefig(file, dpi=140))
    for rank, result in enumerate(best[:DRAWN], start=1):
        candidate = result.candidate
        shape = f", {candidate.shape.chosen}" if candidate.shape.chosen != AS_SET else ""
        title = f"{name}: block {candidate.number}{shape}, reward {result.reward:.2f}"
        draw_block(candidate.block, directory / f"best_{rank}.png", title)
