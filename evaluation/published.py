"""Results that others have published, to stand beside ours: printed there, not measured here."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
"""Data sets with published results, and their classes; with other classes it is another set."""

NUMBERS: dict[str, type[int] | type[float]] = {
    "depth": int,
    "parameters": int,
    "error": float,
    "error_std": float,
    "top5_error": float,
    "gpu_days": float,
}
"""Columns of published.csv that hold numbers, and their types; an empty cell is None."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One printed result: errors in percent on the test set, GPU-days of the search.

    `source` is the publication that the numbers were read in, not always the network's own, and
    `place` the table there.
    """

    data: str
    network: str
    depth: int | None
    parameters: int | None
    error: float
    error_std: float | None
    top5_error: float | None
    gpu_days: float | None
    source: str
    place: str
    note: str

    @property
    def ours(self) -> bool:
        """Whether it is a result of the method that this package implements."""
        return self.network.startswith(("Block-QNN", "BlockQNN"))


@cache
def published() -> tuple[Published, ...]:
    """All rows of published.csv."""
    text = files("evaluation").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(_row(row) for row in csv.DictReader(text.splitlines()))


def published_on(name: str, classes: int) -> tuple[Published, ...]:
    """The results published on a data set, by its name and number of classes; none for others."""
    if CLASSES.get(name) != classes:
        return ()
    return tuple(row for row in published() if row.data == name)


def _row(row: Mapping[str, str]) -> Published:
    values: dict[str, Any] = {**row}
    for name, kind in NUMBERS.items():
        values[name] = kind(row[name]) if row[name] else None
    return Published(**values)
