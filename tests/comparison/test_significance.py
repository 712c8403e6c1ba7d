"""The statistics, against numbers worked out by hand and against scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from evaluation.comparison.significance import half_width, holm, paired


def test_an_interval_by_hand():
    """Mean 2, deviation 1, three values: t(0.975, 2) = 4.3027, over the root of three."""
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert np.isnan(half_width([[1.0, 2.0]])).all()


def test_a_paired_test_by_hand():
    """All six differences of one sign: p = 2 / 2**6."""
    ours, theirs = [1, 2, 3, 4, 5, 6.5], [0, 0, 0, 0, 0, 0]
    found = paired(ours, theirs)
    assert found.p == pytest.approx(2 / 64)
    assert found.mean == pytest.approx(21.5 / 6)
    low, high = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_equal_agents_do_not_differ():
    assert paired([1, 2], [1, 2])[:] == (0, 0, 0, 1)
    assert paired([1, 2, 3], [1, 2, 4]).p == 1


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
