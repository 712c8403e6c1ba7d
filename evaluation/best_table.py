"""The table of a search's best blocks, the same for the terminal, Prefect and files."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blockqnn.search.records import Result
from blockqnn.storage import write_atomically

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
LATENCY = "latency ms"
"""A column after the parameters where any of the rows has it."""
DIGITS = {
    "reward": 2,
    "accuracy": 2,
    "MMACs": 3,
    LATENCY: 3,
    "density": 3,
    "epsilon": 2,
    "seconds": 1,
}
"""Decimal places of the columns that are not whole numbers."""


def best_table(results: Sequence[Result]) -> list[Row]:
    """One row a result, ranked from 1 in the order given, which is best first for `Search.best`.

    Reward and accuracy are in percent (accuracy None unless trained), MMACs in millions for one
    image, seconds of training; number and iteration count from 0, as in the journal. Values are
    rounded for people; the journal keeps them whole.
    """
    measured = any(result.outcome.latency is not None for result in results)
    return [_row(rank, result, measured) for rank, result in enumerate(results, start=1)]


def _row(rank: int, result: Result, measured: bool) -> Row:
    candidate, outcome, cost = result.candidate, result.outcome, result.cost
    row: Row = {
        "rank": rank,
        "number": candidate.number,
        "reward": result.reward,
        "accuracy": outcome.accuracy,
        "MMACs": cost.macs / 1e6,
        "parameters": cost.parameters,
        **({LATENCY: outcome.latency} if measured else {}),
        "density": candidate.block.density,
        "iteration": candidate.iteration,
        "epsilon": candidate.epsilon,
        "seconds": outcome.seconds,
        "code": str(candidate.block),
    }
    for column, digits in DIGITS.items():
        if row.get(column) is not None:
            row[column] = round(row[column], digits)
    return row


def write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes rows of `best_table` as CSV or Markdown by the suffix (`ValueError` for others).

    An empty table has its heading. Raises OSError when the file cannot be written.
    """
    if path.suffix == ".csv":
        text = _csv(rows)
    elif path.suffix == ".md":
        text = _markdown(rows)
    else:
        raise ValueError(f"cannot write the table to {path}: the name must end in .csv or .md")
    write_atomically(path, lambda file: file.write(text.encode()))


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, _columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = _columns(rows)
    marks = ["---" if column == "code" else "---:" for column in columns]
    body = [[_cell(column, row[column]) for column in columns] for row in rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [columns, marks, *body])


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(rows[0]) if rows else list(COLUMNS)


def _cell(column: str, value: Any) -> str:
    if value is None:
        return "-"
    if column == "code":
        return f"`{value}`"
    if column in DIGITS:
        return f"{value:.{DIGITS[column]}f}"
    return f"{value:,}" if column == "parameters" else str(value)
