"""Where the boxes and arrows of a small directed graph go: a layered, top-down layout.

The classic four steps (Sugiyama, Tagawa and Toda, 1981): give every node a row, break long edges
into *dummy* nodes that keep a lane free in each row they cross, order each row so that few edges
cross, and move the nodes sideways until the edges are straight. Pure Python, no randomness: the
same graph always gets the same places, in a few milliseconds for the 25 nodes of a full block.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

Edge = tuple[int, int]
"""Numbers of the boxes that an edge leaves and reaches."""
Span = tuple[float, float]
"""The lowest and highest x that a node may have."""
Pull = tuple[float, float]
"""An x that a node is drawn to, and how strongly."""
GAP = 16.0
"""Least free space between two neighbours of a row, in points."""
LANE = 4.0
"""Width that a passing edge takes in a row, in points."""
SWEEPS = 12
"""Passes down and up the rows, when ordering and again when straightening."""


@dataclass(frozen=True)
class Layout:
    """Where boxes and edges lie: rows from 0 at the top, x in points from the left border."""

    rows: tuple[int, ...]
    """Row of each box."""
    x: tuple[float, ...]
    """Horizontal centre of each box."""
    lanes: dict[Edge, tuple[float, ...]]
    """Each edge's x in every row strictly between its two ends, from top to bottom."""
    width: float
    """Distance from the left border of the leftmost box to the right border of the rightmost."""


def lay_out(widths: Sequence[float], edges: Sequence[Edge]) -> Layout:
    """Lay out boxes 0, 1, ... of the given widths (points). Every edge goes from a lower to a
    higher number and no box is without one. Edges that leave the same box share their lanes."""
    count = len(widths)
    rows = _rows(count, edges)
    graph = _Graph(widths, edges, rows)
    _order(graph)
    x = _straighten(graph)
    left = min(centre - width / 2 for centre, width in zip(x, graph.widths, strict=True))
    right = max(centre + width / 2 for centre, width in zip(x, graph.widths, strict=True))
    x = [value - left for value in x]
    lanes = {edge: tuple(x[n] for n in path) for edge, path in graph.lanes.items()}
    return Layout(tuple(rows), tuple(x[:count]), lanes, right - left)


def _rows(count: int, edges: Sequence[Edge]) -> list[int]:
    """The row of each node: its longest path from the top, or lower where that shortens edges or
    evens out rows."""
    above: list[list[int]] = [[] for _ in range(count)]
    below: list[list[int]] = [[] for _ in range(count)]
    for source, target in edges:
        above[target].append(source)
        below[source].append(target)
    rows = [0] * count
    for node in range(count):
        rows[node] = max((rows[n] + 1 for n in above[node]), default=0)
    filling = [0] * count
    for row in rows:
        filling[row] += 1
    for node in reversed(range(count)):
        if not below[node] or len(below[node]) < len(above[node]):
            continue
        lowest = min(rows[n] for n in below[node]) - 1
        filling[rows[node]] -= 1
        if len(below[node]) > len(above[node]) > 0:
            rows[node] = lowest
        elif above[node]:
            rows[node] = min(range(rows[node], lowest + 1), key=lambda row: filling[row])
        filling[rows[node]] += 1
    return rows


class _Graph:
    """The graph with its dummy nodes, numbered after the others, so that every segment joins two
    adjacent rows."""

    def __init__(self, widths: Sequence[float], edges: Sequence[Edge], rows: Sequence[int]) -> None:
        count = len(widths)
        self.widths = list(widths)
        self.order: list[list[int]] = [[] for _ in range(max(rows) + 1)]
        self.up: list[list[int]] = [[] for _ in range(count)]
        self.down: list[list[int]] = [[] for _ in range(count)]
        self.lanes: dict[Edge, list[int]] = {}
        self.count = count
        for node in range(count):
            self.order[rows[node]].append(node)
        self.trunks: list[list[int]] = [[] for _ in range(count)]
        for source, target in edges:
            trunk, steps = self.trunks[source], rows[target] - rows[source] - 1
            while len(trunk) < steps:
                dummy = self._dummy(rows[source] + len(trunk) + 1)
                self._join(trunk[-1] if trunk else source, dummy)
                trunk.append(dummy)
            self.lanes[source, target] = trunk[:steps]
            self._join(trunk[steps - 1] if steps else source, target)

    def _dummy(self, row: int) -> int:
        self.widths.append(LANE)
        self.up.append([])
        self.down.append([])
        self.order[row].append(len(self.widths) - 1)
        return len(self.widths) - 1

    def _join(self, upper: int, lower: int) -> None:
        self.down[upper].append(lower)
        self.up[lower].append(upper)


def _crossings(graph: _Graph) -> int:
    """How many pairs of segments cross, by counting inversions row by row."""
    total = 0
    for upper, lower in pairwise(graph.order):
        place = {node: i for i, node in enumerate(lower)}
        seen: list[int] = []
        for node in upper:
            for target in sorted(place[n] for n in graph.down[node]):
                total += len(seen) - bisect_left(seen, target + 1)
                insort(seen, target)
    return total


def _order(graph: _Graph) -> None:
    """Order each row by barycentre sweeps and swaps of neighbours, and keep the best order seen."""
    best, fewest = [list(row) for row in graph.order], _crossings(graph)
    for sweep in range(SWEEPS):
        if fewest == 0:
            break
        downwards = sweep % 2 == 0
        numbers = range(1, len(graph.order)) if downwards else range(len(graph.order) - 2, -1, -1)
        for number in numbers:
            fixed = graph.order[number - 1 if downwards else number + 1]
            links = graph.up if downwards else graph.down
            _sort_row(graph.order[number], fixed, links)
        _swap_neighbours(graph)
        crossings = _crossings(graph)
        if crossings < fewest:
            best, fewest = [list(row) for row in graph.order], crossings
    graph.order = best


def _sort_row(row: list[int], fixed: Sequence[int], links: Sequence[Sequence[int]]) -> None:
    place = {node: i for i, node in enumerate(fixed)}
    centre = {
        node: sum(place[n] for n in links[node]) / len(links[node]) if links[node] else float(i)
        for i, node in enumerate(row)
    }
    row.sort(key=centre.__getitem__)


def _swap_neighbours(graph: _Graph) -> None:
    place = {node: i for row in graph.order for i, node in enumerate(row)}
    for row in graph.order:
        for i in range(len(row) - 1):
            left, right = row[i], row[i + 1]
            gain = 0
            for links in (graph.up, graph.down):
                for a in links[left]:
                    for b in links[right]:
                        gain += (place[a] > place[b]) - (place[a] < place[b])
            if gain > 0:
                row[i], row[i + 1] = right, left
                place[left], place[right] = i + 1, i


def _straighten(graph: _Graph) -> list[float]:
    """Centres that keep each row's order and gaps and make the segments as upright as possible:
    first in the least-squares sense, which balances, then in absolute length, which makes most
    segments exactly vertical. Row by row, each row solved exactly; then each lane as a whole."""
    x = [0.0] * len(graph.widths)
    for row in graph.order:
        offsets = _offsets(graph, row)
        for node, offset in zip(row, offsets, strict=True):
            x[node] = offset - offsets[-1] / 2
    for settle, sweeps in ((_mean, 2 * SWEEPS), (_median, SWEEPS)):
        for sweep in range(sweeps):
            for row in graph.order if sweep % 2 == 0 else reversed(graph.order):
                _settle_row(graph, row, x, settle)
    columns = _chains(graph) + graph.trunks
    for column in columns * 2:
        _align(column, x, _free_space(graph, x))
    return x


def _chains(graph: _Graph) -> list[list[int]]:
    """Runs of nodes one below the other, each joined to the next by one segment alone."""
    chains: dict[int, list[int]] = {}
    for row in graph.order:
        for node in row:
            above = graph.up[node]
            alone = len(above) == 1 and len(graph.down[above[0]]) == 1
            chains[node] = chains[above[0]] if alone else []
            chains[node].append(node)
    return [chain for node, chain in chains.items() if node == chain[0]]


def _align(column: Sequence[int], x: list[float], free: Callable[[int], Span]) -> None:
    """Move the longest runs of a column that fit between their neighbours to one x each."""
    start = 0
    while start < len(column):
        low, high = free(column[start])
        end = start + 1
        while end < len(column):
            left, right = free(column[end])
            if max(low, left) > min(high, right):
                break
            low, high = max(low, left), min(high, right)
            end += 1
        run = column[start:end]
        middle = sorted(x[node] for node in run)[len(run) // 2]
        for node in run:
            x[node] = min(max(middle, low), high)
        start = end


def _free_space(graph: _Graph, x: list[float]) -> Callable[[int], Span]:
    """A function from a node to the span in which it touches no neighbour of its row."""
    beside = {
        node: (row[i - 1] if i else None, row[i + 1] if i + 1 < len(row) else None)
        for row in graph.order
        for i, node in enumerate(row)
    }

    def between(node: int) -> Span:
        left, right = beside[node]
        half = graph.widths[node] / 2 + GAP
        return (
            -inf if left is None else x[left] + graph.widths[left] / 2 + half,
            inf if right is None else x[right] - graph.widths[right] / 2 - half,
        )

    return between


def _offsets(graph: _Graph, row: Sequence[int]) -> list[float]:
    """Least distance of each node of a row from the first one."""
    offsets = [0.0]
    for left, right in pairwise(row):
        offsets.append(offsets[-1] + (graph.widths[left] + graph.widths[right]) / 2 + GAP)
    return offsets


def _settle_row(
    graph: _Graph, row: Sequence[int], x: list[float], settle: Callable[[list[Pull]], float]
) -> None:
    """Move a row's nodes to where they are drawn, by pool-adjacent-violators: nodes that would come
    too close are joined and move as one."""
    offsets = _offsets(graph, row)
    pools: list[tuple[float, list[int], list[Pull]]] = []
    for i, node in enumerate(row):
        pulls = [
            (x[other] - offsets[i], _strength(graph, node, other))
            for other in graph.up[node] + graph.down[node]
        ]
        members = [i]
        value = settle(pulls)
        while pools and pools[-1][0] > value:
            _, more, strings = pools.pop()
            members, pulls = more + members, strings + pulls
            value = settle(pulls)
        pools.append((value, members, pulls))
    for value, members, _ in pools:
        for i in members:
            x[row[i]] = value + offsets[i]


def _strength(graph: _Graph, a: int, b: int) -> float:
    """How strongly one node draws another: most between dummies, to keep long edges straight."""
    return 8.0 if a >= graph.count and b >= graph.count else 1.0


def _mean(pulls: list[Pull]) -> float:
    return sum(place * weight for place, weight in pulls) / sum(weight for _, weight in pulls)


def _median(pulls: list[Pull]) -> float:
    """The middle of the weighted median interval, so that two equal pulls meet half-way."""
    ordered = sorted(pulls)
    half = sum(weight for _, weight in ordered) / 2
    reached = 0.0
    for i, (place, weight) in enumerate(ordered):
        reached += weight
        if reached == half:
            return (place + ordered[i + 1][0]) / 2
        if reached > half:
            break
    return place
