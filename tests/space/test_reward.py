"""Equation 7 by hand."""

import math

import pytest

from blockqnn.reward import latency_price, parameters_price, reward
from blockqnn.space import Block
from blockqnn.zoo import BLOCKS


@pytest.mark.parametrize(
    ("accuracy", "macs", "density", "expected"),
    [
        (70.0, 8_000_000, 2.0, 59.0),  # 70 - 3 - 8
        (70.0, 1_000_000, 1.0, 70.0),
        (50.0, 64_000_000, 1.0, 44.0),
        (50.0, 500_000, 0.5, 59.0),  # less than 1 MFLOP and fewer edges than nodes are a bonus
        (0.0, 2_000_000, 4.0, -17.0),
    ],
)
def test_by_hand(accuracy, macs, density, expected):
    assert reward(accuracy, macs=macs, density=density) == pytest.approx(expected, abs=1e-12)


def test_weights():
    assert reward(60.0, macs=4e6, density=2.0, mu=0.5, rho=3.0) == 56.0  # 60 - 0.5 * 2 - 3 * 1
    assert reward(60.0, macs=4e6, density=2.0, mu=0.0, rho=0.0) == 60.0


def test_halving_the_work_is_worth_mu_and_halving_the_density_rho():
    base = reward(80.0, macs=123_456_789, density=1.7)
    assert reward(80.0, macs=123_456_789 / 2, density=1.7) - base == pytest.approx(1.0)
    assert reward(80.0, macs=123_456_789, density=0.85) - base == pytest.approx(8.0)


def test_a_published_block():
    # S has 22 edges and 16 nodes: 8 log2(22 / 16) = 3.6755
    assert BLOCKS["S"].density == 22 / 16
    assert reward(65.0, macs=1e6, density=BLOCKS["S"].density) == pytest.approx(61.3245, abs=1e-4)


def test_the_empty_block_has_a_reward():
    empty = Block.parse("(1,7,0,0,0)")
    assert math.isfinite(reward(10.0, macs=1, density=empty.density))


@pytest.mark.parametrize("value", [0, -1, -0.5, math.nan])
def test_what_has_no_logarithm_is_refused(value):
    with pytest.raises(ValueError, match=f"macs is {value}"):
        reward(50.0, macs=value, density=1.0)
    with pytest.raises(ValueError, match=f"density is {value}"):
        reward(50.0, macs=1e6, density=value)


def test_what_parameters_and_latency_cost():
    assert parameters_price(4e6, 1.5) == 3.0  # 1.5 log2(4)
    assert parameters_price(250_000, 1.0) == -2.0
    assert latency_price(8.0, 0.5) == 1.5
    assert latency_price(0.25, 2.0) == -4.0
    assert parameters_price(4e6, 0.0) == latency_price(None, 0.0) == 0.0
    for latency in (None, 0.0, math.nan):
        with pytest.raises(ValueError, match=r"latency is .*: reward.latency needs one above 0"):
            latency_price(latency, 1.0)
