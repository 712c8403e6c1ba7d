"""Tables of cells that others have trained, as benchmarks for our agents.

Another table needs no more than a function like `read_nasbench201`, which finds the options of each
choice, and the reward and the accuracy of each cell.
"""

import csv
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from blockqnn.errors import UserError
from blockqnn.settings.checks import require
from evaluation.comparison.cells import Cell, CellSpace, read_table_file
from evaluation.comparison.run import About, Score

NASBENCH201 = CellSpace((5,) * 6)
"""The cells of NAS-Bench-201. Its edges 0-1, 0-2, 1-2, 0-3, 1-3 and 2-3 each have an operation:
none, skip, conv 1x1, conv 3x3 or average pool 3x3."""
NASBENCH201_DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet16": "ImageNet16-120"}
"""Data sets on which the cells were trained, with their names in full."""
PUBLISHED = {
    "cifar10": (
        ("random search", 93.70),
        ("REINFORCE", 93.85),
        ("regularised evolution", 93.92),
        ("BOHB", 93.61),
    )
}
"""Accuracies in percent that others' agents reached on NAS-Bench-201, as published."""
PUBLICATION = (
    "Dong and Yang, NAS-Bench-201 (ICLR 2020): CIFAR-10 test accuracy, a budget of 12,000 seconds "
    "of simulated training, mean of 500 runs. Printed there, not measured here: another budget, "
    "and settings of their own."
)
"""Where `PUBLISHED` was published, and under which conditions."""


@dataclass(frozen=True)
class CellTable:
    """A benchmark of cells. Raises `UserError` unless every cell has a score of finite numbers."""

    space: CellSpace
    scores: Mapping[str, Score]
    """Scores by the cell's key."""
    about: About
    name: str = "a table"
    """What error messages call the table."""

    def __post_init__(self) -> None:
        whole = math.prod(self.space.options)
        if len(self.scores) != whole:
            raise UserError(f"{self.name} has {len(self.scores):,} cells: all {whole:,} are needed")
        for key, score in self.scores.items():
            if not all(map(math.isfinite, score)):
                raise UserError(f"{self.name} has {score} for the cell {key}: give finite numbers")

    def encode(self, cell: Cell) -> NDArray[np.float64]:
        """A vector with a 1 for each option taken."""
        return self.space.encode(cell)

    def score(self, cell: Cell) -> Score:
        """The score of a cell in the table."""
        return self.scores[cell.key]


def read_nasbench201(path: Path, data: str) -> CellTable:
    """NAS-Bench-201 from a CSV, compressed by gzip or not, with a row for each cell.

    Its columns are `code`, six digits; `<data>_val_12ep`, the reward in percent; and the accuracy
    in percent: `cifar10_test_200ep_mean`, or for the other data the mean of `<data>_val_200ep`,
    where semicolons separate the seeds. Raises `SettingsError` for other data, and `UserError` for
    a file that cannot be read or is no such table.
    """
    require(data in NASBENCH201_DATA, "data", data, f"choose one of {', '.join(NASBENCH201_DATA)}")
    reward = f"{data}_val_12ep"
    final = "cifar10_test_200ep_mean" if data == "cifar10" else f"{data}_val_200ep"
    content = read_table_file(path)
    scores: dict[str, Score] = {}
    rows = csv.DictReader(content.splitlines())
    try:
        for column in ("code", reward, final):
            if column not in (rows.fieldnames or ()):
                raise ValueError(f"there is no column {column}")
        for row in rows:
            cell = NASBENCH201.cell([int(digit) for digit in row["code"] or ""])
            NASBENCH201.check(cell)
            numbers = [float(part) for part in (row[final] or "").split(";")]
            score = Score(float(row[reward]), fmean(numbers))
            if not all(0 <= number <= 100 for number in (*numbers, score.reward)):
                raise ValueError(f"{row[reward]} and {row[final]} are not percent")
            if cell.key in scores:
                raise ValueError(f"{row['code']} is there twice")
            scores[cell.key] = score
    except (ValueError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path} cannot be used, line {rows.line_num}: {error}: give a CSV of NAS-Bench-201's "
            "cells"
        ) from None
    return CellTable(NASBENCH201, scores, _about(content, data, scores), str(path))


def _about(content: str, data: str, scores: Mapping[str, Score]) -> About:
    name = NASBENCH201_DATA[data]
    kind = "test" if data == "cifar10" else "validation"
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    return About(
        title=f"Agents on NAS-Bench-201, {name}",
        text=f"A table of all {len(scores):,} cells of NAS-Bench-201 (SHA-256 of its text "
        f"{digest}...). The reward is the validation accuracy after 12 epochs; the pick, the "
        f"evaluated cell with the best reward, is judged by its mean {kind} accuracy on {name} "
        "after 200 epochs.",
        measure="accuracy",
        measured=f"{kind} accuracy of the pick (%)",
        best=max((score.accuracy for score in scores.values()), default=None),
        published=PUBLISHED.get(data, ()),
        publication=PUBLICATION if data in PUBLISHED else "",
    )
