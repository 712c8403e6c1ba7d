"""Pareto fronts: what is most accurate for what it costs."""

import csv
import io
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from blockqnn.errors import SearchError
from blockqnn.search.history import History
from blockqnn.space import LONGEST, Block
from blockqnn.storage import write_atomically

T = TypeVar("T")

COSTS = {
    "macs": "multiply-accumulates of one image",
    "parameters": "parameters",
    "latency": "latency (ms)",
}
"""What a network costs, and how a picture names it; latency only where it was measured."""
MOST = 1e30
"""More than any network costs."""


@dataclass(frozen=True)
class Point:
    """A trained block: accuracy and reward in percent, costs, latency in milliseconds."""

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
    """Those that no other beats: a higher value at no more cost, or the same at less; cheapest
    first.
    """
    front: list[T] = []
    for item in sorted(items, key=lambda item: (cost(item), -value(item))):
        if not front or value(item) > value(front[-1]):
            front.append(item)
    return front


def points_of(history: History) -> list[Point]:
    """Every distinct block that a search trained to the end, in journal order."""
    return [
        Point(
            result.candidate.number,
            result.outcome.accuracy,
            result.reward,
            result.cost.macs,
            result.cost.parameters,
            result.outcome.latency,
            str(result.candidate.block),
        )
        for result in history.results
        if result.same_as is None and result.outcome.accuracy is not None
    ]


def fronts(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The front by every cost that is known of all points; of equals the one that costs less of
    the others.
    """
    cheapest = sorted(points, key=lambda p: (p.macs, p.parameters, p.latency or 0.0, p.number))
    return {
        name: front_of(cheapest, attrgetter(name), attrgetter("accuracy"))
        for name in COSTS
        if points and all(getattr(point, name) is not None for point in points)
    }


def on_front(points: Sequence[Point]) -> list[Point]:
    """The points that are on any front, the fewest multiply-accumulates first."""
    members = {point.number: point for front in fronts(points).values() for point in front}
    return sorted(members.values(), key=lambda point: (point.macs, point.number))


def write_front(points: Sequence[Point], path: Path) -> None:
    """Write the points that are on a front as CSV; `fronts` says on which. Raises OSError."""
    found = fronts(points)
    rows = []
    for point in on_front(points):
        on = " ".join(name for name, front in found.items() if point in front)
        rows.append({**asdict(point), "fronts": on})  # unrounded: read again it has the same fronts
    text = io.StringIO()
    names = [*(field.name for field in fields(Point)), "fronts"]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def read_front(path: Path) -> list[Point]:
    """What `write_front` wrote; raises `SearchError`. Nothing where there is no file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_point(row) for row in csv.DictReader(file)]
    except FileNotFoundError:  # written before there were any
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
