"""Pareto fronts: what is most accurate for what it costs."""

import csv
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from blockqnn.errors import SearchError
from blockqnn.search.history import History
from blockqnn.space import LONGEST, Block
from blockqnn.storage import write_rows

T = TypeVar("T")

COSTS = {
    "macs": "multiply-accumulates of one image",
    "parameters": "parameters",
    "latency": "latency (ms)",
}
"""The costs of a network and their names in pictures; only some searches measure the latency."""
MOST = 1e30
"""Bound above the cost of any network; a file with more is damaged."""


@dataclass(frozen=True)
class Point:
    """A trained block: candidate number, accuracy and reward in percent, multiply-accumulates of
    one image, parameters, latency in milliseconds, and the block's code."""

    number: int
    accuracy: float
    reward: float
    macs: int
    parameters: int
    latency: float | None
    code: str


def front_of(
    items: Iterable[T], cost: Callable[[T], float], value: Callable[[T], float]
) -> list[T]:
    """The Pareto front of `items`, cheapest first: what no other item beats by a higher value at no
    more cost, or by the same value at less.
    """
    front: list[T] = []
    for item in sorted(items, key=lambda item: (cost(item), -value(item))):
        if not front or value(item) > value(front[-1]):
            front.append(item)
    return front


def points_of(history: History) -> list[Point]:
    """The distinct blocks that a search trained to the end, in journal order, each as it was after
    its furthest training.
    """
    further = {r.candidate.of for r in history.results if r.outcome.kind == "trained"}
    return [
        Point(
            result.candidate.number,
            result.outcome.accuracy,
            result.reward,
            result.cost.macs,
            result.cost.parameters,
            result.outcome.latency,
            str(result.candidate.design),
        )
        for result in history.results
        if result.same_as is None
        and result.outcome.accuracy is not None
        and result.candidate.number not in further
    ]


def fronts(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The Pareto front by each cost that is known of all points. Of points with the same accuracy
    and cost, the one with the lower other costs is on it.
    """
    cheapest = sorted(points, key=lambda p: (p.macs, p.parameters, p.latency or 0.0, p.number))
    return {
        name: front_of(cheapest, attrgetter(name), attrgetter("accuracy"))
        for name in COSTS
        if points and all(getattr(point, name) is not None for point in points)
    }


def on_front(points: Sequence[Point]) -> list[Point]:
    """The points that are on any Pareto front, the fewest multiply-accumulates first."""
    members = {point.number: point for front in fronts(points).values() for point in front}
    return sorted(members.values(), key=lambda point: (point.macs, point.number))


def write_front(points: Sequence[Point], path: Path) -> None:
    """Write the points that are on a Pareto front as CSV, with the names of the costs by which they
    are on one in the column `fronts`. Raises OSError."""
    found = fronts(points)
    rows = [  # unrounded: read again, the points have the same fronts
        {**asdict(point), "fronts": " ".join(name for name in found if point in found[name])}
        for point in on_front(points)
    ]
    write_rows([*(field.name for field in fields(Point)), "fronts"], rows, path)


def read_front(path: Path) -> list[Point]:
    """The points that `write_front` wrote; none where there is no file. Raises `SearchError` for a
    damaged file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_point(row) for row in csv.DictReader(file)]
    except FileNotFoundError:  # former versions wrote no fronts
        return []
    except OSError as error:
        raise SearchError(f"cannot read {path} ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, AttributeError, csv.Error) as error:
        raise SearchError(f"{path} is damaged ({error}): write it again") from None


def _point(row: Mapping[str, Any]) -> Point:
    point = Point(
        int(row["number"]),
        float(row["accuracy"]),
        float(row["reward"]),
        int(row["macs"]),
        int(row["parameters"]),
        float(row["latency"]) if row["latency"] else None,
        str(Block.parse(row["code"], LONGEST)),
    )
    costs = [point.macs, point.parameters, 1.0 if point.latency is None else point.latency]
    if not (0 <= point.accuracy <= 100 and abs(point.reward) <= sys.float_info.max):
        raise ValueError(f"accuracy {point.accuracy} or reward {point.reward}")
    if not all(0 < cost < MOST for cost in costs):
        raise ValueError(f"costs {costs}")
    return point
