"""Whether agents differ, judged by seeds: means with intervals, and a paired test."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95
"""Confidence level of intervals."""
FEWEST = 6
"""Fewest seeds with which a difference can be significant: five have p = 1/16 at best."""


class Difference(NamedTuple):
    """The mean of paired differences, its 95 % interval from `low` to `high`, and p of the test."""

    mean: float
    low: float
    high: float
    p: float


def half_width(values: ArrayLike) -> NDArray[np.float64]:
    """Half the 95 % interval of the mean over the first axis (Student's t); NaN for one value."""
    rows = np.asarray(values, float)
    count = len(rows)
    if count < 2:
        return np.full(rows.shape[1:], np.nan)
    error = rows.std(axis=0, ddof=1) / np.sqrt(count)
    return np.asarray(stats.t.ppf((1 + LEVEL) / 2, count - 1) * error)


def paired(ours: ArrayLike, theirs: ArrayLike) -> Difference:
    """Compare `ours` with `theirs`, seed by seed, by the two-sided Wilcoxon signed-rank test.

    The test leaves out seeds without a difference, as Wilcoxon's does. Without any, p is 1.
    """
    differences = np.asarray(ours, float) - np.asarray(theirs, float)
    mean, half = float(differences.mean()), float(half_width(differences))
    unequal = differences[differences != 0]
    p = float(stats.wilcoxon(unequal).pvalue) if len(unequal) else 1.0
    return Difference(mean, mean - half, mean + half, p)


def holm(values: Sequence[float]) -> list[float]:
    """Adjust the p-values of several tests (Holm 1979). The order stays."""
    adjusted = [1.0] * len(values)
    most = 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        most = max(most, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = most
    return adjusted
