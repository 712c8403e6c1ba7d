"""Hand-made numbers that describe a block, from which a surrogate predicts accuracy.

All of them are properties of the graph, not of the way it is written: blocks with one `key` have
equal features. Layers that compute nothing are left out. The journal version's surrogate we could
not read; predicting from such numbers is our reading of it.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from blockqnn.cost import Cost
from blockqnn.space import AS_SET, KERNELS, WIRES, Block, Layer, Op, Shape, predecessors
from blockqnn.space.block import CONVOLUTIONS
from blockqnn.space.shape import MOST_STAGES
from blockqnn.space.skeleton import CONNECTIONS, STEM_POOLS
from blockqnn.surrogate.kernel import Array

_COUNTED = {
    f"{Op(op).name.lower()}{kernel or ''}": (int(op), kernel)
    for op, kernels in KERNELS.items()
    for kernel in kernels
    if op != Op.TERMINAL and (op, kernel) not in WIRES
}
"""(kind, kernel) of the layers that compute something, by name."""


def block_features(block: Block, cost: Cost, shape: Shape = AS_SET) -> Array:
    """The numbers of `named_features`, and behind these what was chosen of the network's shape.

    Filters are not told, as the cost tells what follows from them. In one search all shapes have
    the same parts, so that all vectors have one length.
    """
    numbers = list(named_features(block, cost).values())
    if shape.repeats is not None:  # stages that are not there have no blocks
        numbers += [len(shape.repeats), *shape.repeats, *([0] * (MOST_STAGES - len(shape.repeats)))]
    for known, chosen in ((STEM_POOLS, shape.skeleton), (CONNECTIONS, shape.connections)):
        numbers += [float(each == chosen) for each in known if chosen is not None]
    return np.array(numbers)


def named_features(block: Block, cost: Cost) -> dict[str, float]:
    """What a surrogate is told of a block, by name and always in the same order.

    `cost` is that of the network stacked from the block, so a surrogate learns one skeleton.
    Widths are in filters of a stage, the block input being one wide; receptive fields are in
    pixels a side.
    """
    layers, ends_at = block.computing_layers()
    nodes = {0: _Node()}
    for layer in layers:
        nodes[layer.index] = _node(layer, [nodes[source] for source in predecessors(layer)])
    leaves = [nodes[leaf] for leaf in ends_at]
    end = _joined(leaves)
    labels = [nodes[layer.index].label for layer in layers]
    ends = [leaf.label for leaf in leaves]
    return {
        **{name: labels.count(label) for name, label in _COUNTED.items()},
        **{f"leaf {name}": ends.count(label) for name, label in _COUNTED.items()},
        "leaf input": ends.count(nodes[0].label),
        "edges to leaves": len(leaves),
        "convolutions": sum(op in CONVOLUTIONS for op, _ in labels),
        "layers": len(labels),
        "most convolutions on a path": end.convolutions.most,
        "fewest convolutions on a path": end.convolutions.least,
        "mean convolutions on a path": end.convolutions.total / end.paths,
        "most layers on a path": end.layers.most,
        "log2 paths": math.log2(end.paths),
        "largest receptive field": 1 + end.reach.most,
        "smallest receptive field": 1 + end.reach.least,
        "mean receptive field": 1 + end.reach.total / end.paths,
        "log2 output width": math.log2(sum(leaf.width for leaf in leaves)),
        "log2 output width without convolutions": math.log2(1 + sum(leaf.raw for leaf in leaves)),
        "log2 macs": math.log2(cost.macs),
        "log2 parameters": math.log2(cost.parameters),
        "log2 activation bytes": math.log2(cost.activation_bytes),
    }


class _Length(NamedTuple):
    """Largest, smallest and total length of the paths from the block input to one place."""

    most: int = 0
    least: int = 0
    total: int = 0

    @staticmethod
    def joined(lengths: "Iterable[_Length]") -> "_Length":
        most, least, total = zip(*lengths, strict=True)
        return _Length(max(most), min(least), sum(total))

    def longer(self, by: int, paths: int) -> "_Length":
        return _Length(self.most + by, self.least + by, self.total + by * paths)


class _Node(NamedTuple):
    """A layer's output, and the paths that lead to it from the block input."""

    label: tuple[int, int] = (0, 0)
    """(kind, kernel) of the layer, zeros for the block input."""
    width: int = 1
    """Channels of the output, in filters of the stage."""
    raw: int = 1
    """Part of the width that no convolution has touched."""
    paths: int = 1
    """Number of paths from the block input."""
    convolutions: _Length = _Length()
    """Number of convolutions on a path."""
    layers: _Length = _Length()
    """Number of layers on a path."""
    reach: _Length = _Length()
    """Side of a path's receptive field in pixels, less one."""


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


FEATURES = tuple(named_features(Block.parse("(1,7,0,0,0)"), Cost(1, 1, 1)))
"""The name of each entry of `block_features`."""
