"""Hand-made numbers that describe a block: what a surrogate predicts accuracy from.

All of them are properties of the graph, not of the way it is written: blocks with one `key` have
equal features. Identities and poolings of kernel 1 compute nothing and are folded away first.
The journal paper's surrogate could not be read: predicting from such numbers is our reading of it.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blockqnn.cost import Cost
from blockqnn.space import CONVOLUTIONS, KERNELS, WIRES, Block, Layer, Op

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


def block_features(block: Block, cost: Cost) -> NDArray[np.float64]:
    """The numbers named by `FEATURES`, shape (len(FEATURES),).

    `cost` is that of the network stacked from the block, so a surrogate learns one skeleton.
    Widths are in filters of a stage, the block input being one wide; receptive fields are in
    pixels a side.
    """
    computing, ends_at = block.computing_layers()
    nodes = {0: _INPUT}
    for layer, read in computing:
        nodes[layer.index] = _node(layer, [nodes[source] for source in read])
    leaves = [nodes[leaf] for leaf in ends_at]
    end = _joined(leaves)
    labels = [nodes[layer.index].label for layer, _ in computing]
    ends = [leaf.label for leaf in leaves]
    return np.array(
        [
            *map(labels.count, _COUNTED),
            *map(ends.count, _COUNTED),
            ends.count(_INPUT.label),
            len(leaves),
            sum(op in CONVOLUTIONS for op, _ in labels),
            len(labels),
            end.most,
            end.fewest,
            end.convolutions / end.paths,
            end.longest,
            math.log2(end.paths),
            1 + end.largest,
            1 + end.smallest,
            1 + end.reach / end.paths,
            math.log2(sum(leaf.width for leaf in leaves)),
            math.log2(1 + sum(leaf.raw for leaf in leaves)),
            math.log2(cost.macs),
            math.log2(cost.parameters),
            math.log2(cost.activation_bytes),
        ]
    )


class _Node(NamedTuple):
    """What is known of a layer's output, from all paths that lead to it from the block input."""

    label: tuple[int, int] = (0, 0)
    width: int = 1
    raw: int = 1
    """Of the width, what no convolution has touched."""
    paths: int = 1
    most: int = 0
    fewest: int = 0
    convolutions: int = 0
    """On a path: at most, at least, summed over the paths."""
    longest: int = 0
    largest: int = 0
    smallest: int = 0
    reach: int = 0
    """Receptive field less one: at most, at least, summed over the paths."""


_INPUT = _Node()


def _joined(sources: list[_Node]) -> _Node:
    return _Node(
        paths=sum(node.paths for node in sources),
        most=max(node.most for node in sources),
        fewest=min(node.fewest for node in sources),
        convolutions=sum(node.convolutions for node in sources),
        longest=max(node.longest for node in sources),
        largest=max(node.largest for node in sources),
        smallest=min(node.smallest for node in sources),
        reach=sum(node.reach for node in sources),
    )


def _node(layer: Layer, sources: list[_Node]) -> _Node:
    before = _joined(sources)
    widths = [node.width for node in sources]
    raw = sum(node.raw for node in sources)
    if layer.op in CONVOLUTIONS:
        width, raw = 1, 0
    elif layer.op == Op.ADD:  # unequal operands are projected by a convolution
        width = widths[0] if len(set(widths)) == 1 else 1
        raw = min(raw, width)
    else:
        width = sum(widths)
    convolution = layer.op in CONVOLUTIONS
    wider = max(layer.kernel - 1, 0)
    return before._replace(
        label=(int(layer.op), layer.kernel),
        width=width,
        raw=raw,
        most=before.most + convolution,
        fewest=before.fewest + convolution,
        convolutions=before.convolutions + convolution * before.paths,
        longest=before.longest + 1,
        largest=before.largest + wider,
        smallest=before.smallest + wider,
        reach=before.reach + wider * before.paths,
    )
