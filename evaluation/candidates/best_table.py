"""The table of a search's best blocks, the same for the terminal, Prefect and files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blockqnn.search.records import Result
from blockqnn.storage import write_atomically, write_rows

Row = dict[str, Any]

COLUMNS = (
    "rank",
    "number",
    "reward",
    "accuracy",
    "MMACs",
    "parameters",
    "density",
    "iteration",
    "epsilon",
    "seconds",
    "code",
)
BALANCED = "balanced"
"""Name of the column of balanced accuracies, which follows the accuracy where there are any."""
RUNG = "rung"
"""Name of the column that follows the number where any candidate was trained further."""
LATENCY = "latency ms"
"""Name of the column that follows the parameters where any latency was measured."""
DIGITS = {
    "reward": 2,
    "accuracy": 2,
    BALANCED: 2,
    "MMACs": 3,
    LATENCY: 3,
    "density": 3,
    "epsilon": 2,
    "seconds": 1,
}
"""Decimal places of the columns whose values are not whole numbers."""


def best_table(results: Sequence[Result]) -> list[Row]:
    """One row for each result, ranked from 1 in the order given, which should be best first.

    Reward and accuracies are in percent (accuracies None unless trained), MMACs in millions for one
    image, seconds of training; number and iteration count from 0, as in the journal. Where some
    were trained on further rungs, the rung of each counts from 1, the first training. Values are
    rounded for people; the journal keeps them whole.
    """
    balanced = any(result.outcome.balanced_accuracy is not None for result in results)
    measured = any(result.outcome.latency is not None for result in results)
    further = any(result.candidate.rung for result in results)
    return [
        _row(rank, result, balanced, measured, further)
        for rank, result in enumerate(results, start=1)
    ]


def _row(rank: int, result: Result, balanced: bool, measured: bool, further: bool) -> Row:
    candidate, outcome, cost = result.candidate, result.outcome, result.cost
    row: Row = {
        "rank": rank,
        "number": candidate.number,
        **({RUNG: candidate.rung + 1} if further else {}),
        "reward": result.reward,
        "accuracy": outcome.accuracy,
        **({BALANCED: outcome.balanced_accuracy} if balanced else {}),
        "MMACs": cost.macs / 1e6,
        "parameters": cost.parameters,
        **({LATENCY: outcome.latency} if measured else {}),
        "density": candidate.block.density,
        "iteration": candidate.iteration,
        "epsilon": candidate.epsilon,
        "seconds": outcome.seconds,
        "code": str(candidate.design),
    }
    for column, digits in DIGITS.items():
        if row.get(column) is not None:
            row[column] = round(row[column], digits)
    return row


def write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows of `best_table` as CSV or Markdown by the suffix (`ValueError` for others).

    An empty table has its heading. Raises OSError when the file cannot be written.
    """
    columns = list(rows[0]) if rows else list(COLUMNS)
    if path.suffix == ".csv":
        write_rows(columns, rows, path)
    elif path.suffix == ".md":
        text = _markdown(columns, rows)
        write_atomically(path, lambda file: file.write(text.encode()))
    else:
        raise ValueError(f"cannot write the table to {path}: the name must end in .csv or .md")


def _markdown(columns: list[str], rows: Sequence[Mapping[str, Any]]) -> str:
    marks = ["---" if column == "code" else "---:" for column in columns]
    body = [[_cell(column, row[column]) for column in columns] for row in rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [columns, marks, *body])


def _cell(column: str, value: Any) -> str:
    if value is None:
        return "-"
    if column == "code":
        return f"`{value}`"
    if column in DIGITS:
        return f"{value:.{DIGITS[column]}f}"
    return f"{value:,}" if column == "parameters" else str(value)
