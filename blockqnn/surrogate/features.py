"""Hand-made numbers that describe a block, from which a surrogate predicts accuracy.

All of them are properties of the graph, not of the way it is written: blocks with one `key` have
equal features. Layers that compute nothing are left out. The journal version's surrogate we could
not read; predicting from such numbers is our reading of it.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple, Self

import numpy as np

from blockqnn.cost import Cost
from blockqnn.space import CONVOLUTIONS, KERNELS, WIRES, Block, Layer, Op
from blockqnn.surrogate.kernel import Array

_COUNTED = [
    (int(op), kernel)
    for op, kernels in KERNELS.items()
    for kernel in kernels
    if op != Op.TERMINAL and (op, kernel) not in WIRES
]
_NAMES = [f"{Op(op).name.lower()}{kernel or ''}" for op, kernel in _COUNTED]

FEATURES: tuple[str, ...] = (
    *_NAMES,
    *(f"leaf {name}" for name in _NAMES),
    "leaf input",
    "edges to leaves",
    "convolutions",
    "layers",
    "most convolutions on a path",
    "fewest convolutions on a path",
    "mean convolutions on a path",
    "most layers on a path",
    "log2 paths",
    "largest receptive field",
    "smallest receptive field",
    "mean receptive field",
    "log2 output width",
    "log2 output width without convolutions",
    "log2 macs",
    "log2 parameters",
    "log2 activation bytes",
)
"""What each entry of `block_features` is."""


def block_features(block: Block, cost: Cost) -> Array:
    """The numbers named by `FEATURES`, shape (len(FEATURES),).

    `cost` is that of the network stacked from the block, so a surrogate learns one skeleton.
    Widths are in filters of a stage, the block input being one wide; receptive fields are in
    pixels a side.
    """
    layers, ends_at = block.computing_layers()
    nodes = {0: _Node()}
    for layer, read in layers:
        nodes[layer.index] = _node(layer, [nodes[source] for source in read])
    leaves = [nodes[leaf] for leaf in ends_at]
    end = _joined(leaves)
    labels = [nodes[layer.index].label for layer, _ in layers]
    ends = [leaf.label for leaf in leaves]
    return np.array(
        [
            *map(labels.count, _COUNTED),
            *map(ends.count, _COUNTED),
            ends.count(nodes[0].label),
            len(leaves),
            sum(op in CONVOLUTIONS for op, _ in labels),
            len(labels),
            end.convolutions.most,
            end.convolutions.least,
            end.convolutions.total / end.paths,
            end.layers.most,
            math.log2(end.paths),
            1 + end.reach.most,
            1 + end.reach.least,
            1 + end.reach.total / end.paths,
            math.log2(sum(leaf.width for leaf in leaves)),
            math.log2(1 + sum(leaf.raw for leaf in leaves)),
            math.log2(cost.macs),
            math.log2(cost.parameters),
            math.log2(cost.activation_bytes),
        ]
    )


class _Length(NamedTuple):
    """A length of the paths that lead to one place: the most, the least, the sum over all paths."""

    most: int = 0
    least: int = 0
    total: int = 0

    @classmethod
    def joined(cls, lengths: Iterable[Self]) -> Self:
        most, least, total = zip(*lengths, strict=True)
        return cls(max(most), min(least), sum(total))

    def longer(self, by: int, paths: int) -> Self:
        return self._replace(
            most=self.most + by, least=self.least + by, total=self.total + by * paths
        )


class _Node(NamedTuple):
    """A layer's output, and the paths that lead to it from the block input."""

    label: tuple[int, int] = (0, 0)
    width: int = 1
    raw: int = 1
    """Part of the width that no convolution has touched."""
    paths: int = 1
    convolutions: _Length = _Length()
    layers: _Length = _Length()
    reach: _Length = _Length()
    """Receptive field, less one pixel."""


def _joined(sources: list[_Node]) -> _Node:
    return _Node(
        paths=sum(node.paths for node in sources),
        convolutions=_Length.joined(node.convolutions for node in sources),
        layers=_Length.joined(node.layers for node in sources),
        reach=_Length.joined(node.reach for node in sources),
    )


def _node(layer: Layer, sources: list[_Node]) -> _Node:
    before = _joined(sources)
    widths = [node.width for node in sources]
    width, raw = sum(widths), sum(node.raw for node in sources)
    convolves = layer.op in CONVOLUTIONS
    if convolves:
        width, raw = 1, 0
    elif layer.op == Op.ADD:  # unequal operands are projected by a convolution
        width = widths[0] if len(set(widths)) == 1 else 1
        raw = min(raw, width)
    return before._replace(
        label=(int(layer.op), layer.kernel),
        width=width,
        raw=raw,
        convolutions=before.convolutions.longer(convolves, before.paths),
        layers=before.layers.longer(1, before.paths),
        reach=before.reach.longer(max(layer.kernel - 1, 0), before.paths),
    )
