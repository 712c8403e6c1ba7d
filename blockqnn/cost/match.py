"""Filters with which a network costs as much as another: an equal cost to be compared at."""

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import TypedDict

STEP = 8
"""Filters are multiples of this, in whose groups processors compute."""

TOLERANCE = 0.03
"""Relative difference from the cost aimed at that counts as equal."""

WIDEST = 4096
"""Most filters of a first stage."""


class Matched(TypedDict):
    """That a network was made to cost what block plain's does, and how well that went."""

    by: str
    """What they cost alike, as in `network.match`."""
    ratio: float
    """Its cost beside that of block plain's network."""


def matched_filters(
    cost: Callable[[tuple[int, ...]], float], like: Sequence[int], target: float
) -> tuple[int, ...]:
    """Return the filters, multiples of 8, whose network's cost is within 3 % of `target` and whose
    stages are to each other most as those of `like`; else those with the nearest cost.

    `cost` gives a network's cost for the filters of its stages; more filters cost more. Raises
    `ValueError` for a target that is not positive.
    """
    if not target > 0:
        raise ValueError(f"target is {target!r}: give a cost above 0")

    def scaled(width: int) -> tuple[int, ...]:
        return tuple(max(STEP, round(width * f / like[0] / STEP) * STEP) for f in like)

    known: dict[tuple[int, ...], float] = {}

    def off(filters: tuple[int, ...]) -> float:
        if filters not in known:
            known[filters] = cost(filters)
        return abs(math.log(known[filters] / target))

    low, high = 1, 1
    while high < WIDEST and cost(scaled(high)) < target:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(scaled(middle)) < target else (low, middle)
    near = {scaled(width) for width in range(max(1, high - STEP), high + STEP + 1)}
    found = {
        filters
        for middle in near
        for steps in product((-STEP, 0, STEP), repeat=len(like))
        if min(filters := tuple(f + step for f, step in zip(middle, steps, strict=True))) >= STEP
    }
    equal = [filters for filters in found if off(filters) <= math.log(1 + TOLERANCE)]
    if not equal:
        return min(found, key=lambda filters: (off(filters), filters))
    return min(equal, key=lambda filters: (_unlike(filters, like), off(filters), filters))


def preference(filters: Sequence[int], ratio: float, like: Sequence[int]) -> tuple[bool, float]:
    """Return what is least for the network to be preferred among those with several numbers of
    blocks: one of the cost aimed at, `ratio` being its cost beside that; then one whose first stage
    is as wide as that of `like`.
    """
    off = abs(math.log(ratio)) > math.log(1 + TOLERANCE)
    return off, abs(math.log(filters[0] / like[0]))


def _unlike(filters: Sequence[int], like: Sequence[int]) -> float:
    """How far the ratios between the stages are from those of `like`."""
    logs = [math.log(f / other) for f, other in zip(filters, like, strict=True)]
    middle = sum(logs) / len(logs)
    return math.sqrt(sum((each - middle) ** 2 for each in logs))
