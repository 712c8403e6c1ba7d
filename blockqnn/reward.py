"""Accuracy and costs become one number: the paper's (section 3.3, equation 7), or ours."""

import math
from collections.abc import Iterable

NOT_TRAINED = -1.0
"""Our reward in percent of what was not trained: less than of anything that was."""


def reward(
    accuracy: float, *, macs: float, density: float, mu: float = 1.0, rho: float = 8.0
) -> float:
    """Return the reward in percent: accuracy - mu log2(MFLOPs) - rho log2(density).

    `accuracy` in percent after the short training; `macs` multiply-accumulates of one image (the
    plain count, the formula takes it in millions); `density` edges over nodes of the block. The
    logarithm is base 2, as the paper's figure 6 shows. Raises ValueError when macs or density is
    not positive.
    """
    if not macs > 0:
        raise ValueError(f"macs is {macs!r}: give the multiply-accumulates of one image, above 0")
    if not density > 0:
        raise ValueError(f"density is {density!r}: give edges over nodes, above 0")
    return accuracy - mu * math.log2(macs / 1e6) - rho * math.log2(density)


def latency_price(latency: float | None, weight: float) -> float:
    """Return what a latency in milliseconds takes from the reward: `weight` percent per doubling.

    Our addition, in the form of the paper's formula. With weight 0 it takes nothing; with another
    weight, raises ValueError for a latency that is not positive or was not measured.
    """
    if weight == 0:
        return 0.0
    if latency is None or not latency > 0:
        raise ValueError(f"latency is {latency!r}: reward.latency needs one above 0")
    return weight * math.log2(latency)


def parameters_price(parameters: float, weight: float) -> float:
    """Return what parameters take from the reward: `weight` percent per doubling of a million."""
    return weight * math.log2(parameters / 1e6) if weight else 0.0


def traded_reward(
    accuracy: float, *, chance: float, costs: Iterable[tuple[float, float]] = ()
) -> float:
    """Return our reward in percent: the accuracy, or less of it for what costs more.

    `costs` are pairs of a price and a ratio: each doubling of the ratio, a cost beside that of the
    network it is held against, takes so many percent of what the accuracy is above `chance`. So a
    price means the same on easy and on hard data, and a network that learned nothing gains nothing
    by being small. It is the form of MnasNet's objective (Tan et al., 2019), and never negative.
    """
    gain = accuracy - chance
    if gain <= 0:
        return accuracy
    for percent, ratio in costs:
        gain *= (1 - percent / 100) ** math.log2(ratio)
    return chance + gain
