"""Lines, tables and progress bars for a person at a terminal, and durations in words."""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table


def say(line: str) -> None:
    """Show a line to whoever reads a flow's output: in Prefect's log, or where that is silent on
    standard output.
    """
    # only here: which Prefect API is used is settled before Prefect is imported
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        logger = get_run_logger()
    except MissingContextError:
        logger = logging.getLogger("blockqnn")
    if logger.isEnabledFor(logging.INFO):
        logger.info(line)
    else:
        print(line, flush=True)


def clock(seconds: float) -> str:
    """Seconds as hours, minutes and seconds, `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def print_table(rows: Sequence[Mapping[str, Any]], left: Collection[str] = ()) -> None:
    """Print rows of the same columns as a table: numbers with two decimal places, None as a dash,
    columns in `left` aligned to the left.
    """
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in rows[0] if rows else ():
        table.add_column(column, justify="left" if column in left else "right")
    for row in rows:
        cells = (f"{cell:.2f}" if isinstance(cell, float) else cell for cell in row.values())
        table.add_row(*("-" if cell is None else str(cell) for cell in cells))
    Console().print(table)


class LiveProgress:
    """The base of what shows progress: bars on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        columns = TextColumn("{task.description}"), BarColumn(8), TextColumn("{task.fields[text]}")
        console = Console()
        self._bars = Progress(*columns, console=console) if console.is_terminal else None
        if self._bars is not None:
            self._bars.start()

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bars is not None:
            self._bars.stop()

    def _say(self, line: str) -> None:
        if self._bars is not None:
            self._bars.console.print(line, highlight=False)
        else:
            say(line)
