"""Canonical form of a small directed acyclic multigraph with labelled nodes.

Exact, not a heuristic hash: two graphs get the same form if and only if they are isomorphic.
Colour refinement settles almost every block. Where symmetry is left, one node at a time is
individualised, and the smallest form over all branches is kept.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

Label = tuple[int, int]
"""Kind and kernel of a node, as integers."""
Form = tuple[tuple[int, int, tuple[int, ...]], ...]
"""Nodes in canonical order, each as its two label numbers and its predecessors' places."""


def canonical_form(labels: Sequence[Label], predecessors: Sequence[Sequence[int]]) -> Form:
    """Return the nodes in canonical order, each as its two label numbers and its predecessors.

    `labels[v]` is a pair of integers; `predecessors[v]` lists the nodes with an edge to v, one
    entry an edge, all smaller than v (the nodes come in a topological order).
    """
    tree = _SearchTree(labels, predecessors)
    tree.search(tree.refine(tree.first_colours()), ())
    return min(tree.leaves)


class _SearchTree:
    """The orders of one graph's nodes: each level of the tree individualises a node, a leaf is an
    order of all nodes.
    """

    def __init__(self, labels: Sequence[Label], predecessors: Sequence[Sequence[int]]) -> None:
        self.labels = labels
        self.predecessors = [sorted(sources) for sources in predecessors]
        self.successors: list[list[int]] = [[] for _ in labels]
        for node, sources in enumerate(predecessors):
            for source in sources:
                self.successors[source].append(node)
        self.leaves: dict[Form, list[int]] = {}
        """Each form found, with the node at each of its places."""
        self.automorphisms: list[dict[int, int]] = []

    def first_colours(self) -> list[int]:
        """Colours by label and by the longest ways from the input and to the output."""
        depths = [0] * len(self.labels)
        for node, sources in enumerate(self.predecessors):
            depths[node] = 1 + max([depths[source] for source in sources], default=0)
        heights = [0] * len(self.labels)
        for node in reversed(range(len(heights))):
            heights[node] = 1 + max([heights[after] for after in self.successors[node]], default=0)
        return _ranks(list(zip(depths, heights, self.labels, strict=True)))

    def refine(self, colours: list[int]) -> list[int]:
        """Split colours by the colours of the neighbours until nothing splits any more.

        The new order refines the old one: a node alone in its colour keeps its place for good.
        """
        distinct = len(set(colours))
        while distinct < len(colours):
            colour_of = colours.__getitem__
            nodes = zip(colours, self.predecessors, self.successors, strict=True)
            colours = _ranks(
                [
                    (own, sorted(map(colour_of, before)), sorted(map(colour_of, after)))
                    for own, before, after in nodes
                ]
            )
            previous, distinct = distinct, len(set(colours))
            if distinct == previous:
                break
        return colours

    def search(self, colours: list[int], path: tuple[int, ...]) -> bool:
        """Record the leaves below one tree node; false if its first leaf was known before.

        `path` holds the nodes individualised so far. A known first leaf is an automorphism onto
        a subtree already searched, which therefore holds every form that this one does.
        """
        cell = _first_shared_cell(colours)
        if not cell:
            return self.record(colours)
        tried: list[int] = []
        for node in cell:
            if tried and self.is_equivalent(node, tried, path):
                continue
            split = [2 * colour + 1 for colour in colours]
            split[node] -= 1
            is_new = self.search(self.refine(split), (*path, node))
            if not tried and not is_new:
                return False
            tried.append(node)
        return True

    def record(self, colours: list[int]) -> bool:
        """Store the form that a discrete colouring spells; false if it is there already."""
        order = sorted(range(len(colours)), key=colours.__getitem__)
        place = {node: position for position, node in enumerate(order)}
        form = tuple(
            (*self.labels[node], tuple(sorted(map(place.__getitem__, self.predecessors[node]))))
            for node in order
        )
        known = self.leaves.setdefault(form, order)
        if known is order:
            return True
        self.automorphisms.append(dict(zip(known, order, strict=True)))
        return False

    def is_equivalent(self, node: int, tried: list[int], path: tuple[int, ...]) -> bool:
        """Whether a known automorphism that fixes `path` takes `node` to a node already tried.

        Twins, two nodes with the same edges, need no search; other symmetries are those found
        so far, chained.
        """
        edges = self.predecessors[node], self.successors[node]
        if any(edges == (self.predecessors[other], self.successors[other]) for other in tried):
            return True
        symmetries = [known for known in self.automorphisms if all(known[v] == v for v in path)]
        orbit = [node]
        for member in orbit:  # grows while it is walked; repeating a symmetry gives its inverse
            orbit += {symmetry[member] for symmetry in symmetries}.difference(orbit)
        return not set(orbit).isdisjoint(tried)


def _ranks(values: list[Any]) -> list[int]:
    """Replace each value by the number of smaller values, equal ones counted once."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0] * len(values)
    for smaller, place in pairwise(order):
        ranks[place] = ranks[smaller] + (values[smaller] != values[place])
    return ranks


def _first_shared_cell(colours: list[int]) -> list[int]:
    """The nodes of the smallest colour that several nodes share; empty if none is shared."""
    shared = [colour for colour, count in Counter(colours).items() if count > 1]
    smallest = min(shared, default=None)
    return [node for node, colour in enumerate(colours) if colour == smallest]
