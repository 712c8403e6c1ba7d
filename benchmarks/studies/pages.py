"""Results under docs/results: what a script measured stands between marks of a page, and the rest,
what is said about it, is kept.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def put(page: Path, name: str, text: str) -> None:
    """Put the text between the page's marks of that name, at its end if there are none."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    made = f"{begin}\n{text}\n{end}"
    kept = page.read_text(encoding="utf-8") if page.exists() else ""
    found = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    kept = found.sub(lambda _: made, kept) if found.search(kept) else f"{kept}\n{made}\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(kept, encoding="utf-8")


def write_rows(path: Path, fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A CSV file; four digits after the point of what is no whole number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(fields)
        writer.writerows(
            [f"{value:.4f}" if isinstance(value, float) else value for value in row] for row in rows
        )
