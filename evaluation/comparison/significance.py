"""Whether agents differ, over seeds: means with intervals, and a paired test."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95
FEWEST = 6
"""Seeds below which no difference can be significant: five of five have p = 1/16."""


class Difference(NamedTuple):
    """Mean of the paired differences with a 95 % interval (Student's t), and p of the test."""

    mean: float
    low: float
    high: float
    p: float


def half_width(values: ArrayLike) -> NDArray[np.float64]:
    """Of the 95 % interval of the mean over the first axis (Student's t); NaN for one value."""
    rows = np.asarray(values, float)
    count = len(rows)
    if count < 2:
        return np.full(rows.shape[1:], np.nan)
    error = rows.std(axis=0, ddof=1) / np.sqrt(count)
    return np.asarray(stats.t.ppf((1 + LEVEL) / 2, count - 1) * error)


def paired(ours: ArrayLike, theirs: ArrayLike) -> Difference:
    """`ours` - `theirs`, seed by seed, with the two-sided Wilcoxon signed-rank test.

    Seeds without a difference are left out of the test (Wilcoxon's way); p is 1 where none has one.
    """
    differences = np.asarray(ours, float) - np.asarray(theirs, float)
    mean, half = float(differences.mean()), float(half_width(differences))
    unequal = differences[differences != 0]
    p = float(stats.wilcoxon(unequal).pvalue) if len(unequal) else 1.0
    return Difference(mean, mean - half, mean + half, p)


def holm(values: Sequence[float]) -> list[float]:
    """The p-values of several tests together, adjusted (Holm 1979), in the same order."""
    adjusted = [1.0] * len(values)
    most = 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        most = max(most, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = most
    return adjusted
