"""Layer codes, and the blocks that they spell. `spaces` says which of them a search may propose.

A block is a list of layer codes in the paper's notation, `(index, kind, kernel, pred1, pred2)`,
closed by a terminal layer (CVPR 2018, table 1). Layer 1 reads the block input, predecessor 0;
every later layer reads layers before it. All layers without a successor, the leaves, are
concatenated into the block's output.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache
from typing import NamedTuple

from blockqnn.space.canonical import Label, canonical_form


class Op(IntEnum):
    """The kinds of layer: the paper's seven, under its numbers, and ours."""

    CONV = 1
    """Pre-activation convolution: ReLU, convolution, batch norm."""
    MAX_POOL = 2
    """Maximum of each kernel x kernel window, with stride 1."""
    AVG_POOL = 3
    """Average of each kernel x kernel window, with stride 1; padding does not count."""
    IDENTITY = 4
    """The output of its predecessor, unchanged."""
    ADD = 5
    """Sum of two layers' outputs, brought to one width by 1x1 convolutions if they differ."""
    CONCAT = 6
    """Two layers' outputs, concatenated over channels."""
    TERMINAL = 7
    """End of the block, which concatenates the leaves into the block's output."""
    SEPARABLE = 8
    """Depthwise-separable convolution: ReLU, depthwise convolution, 1x1 convolution, batch norm.
    It is our reading of what the 2018 paper names as future work; the number is ours, too."""


class Layer(NamedTuple):
    """One layer code: place from 1, kind, kernel size, predecessors. Unused fields are 0."""

    index: int  # type: ignore[assignment]  # the paper's name for the field hides tuple.index
    op: int
    kernel: int
    pred1: int
    pred2: int

    def __str__(self) -> str:
        return f"({self.index:d},{self.op:d},{self.kernel:d},{self.pred1:d},{self.pred2:d})"


KERNELS: dict[int, tuple[int, ...]] = {
    Op.CONV: (1, 3, 5),
    Op.MAX_POOL: (1, 3),
    Op.AVG_POOL: (1, 3),
    Op.IDENTITY: (0,),
    Op.ADD: (0,),
    Op.CONCAT: (0,),
    Op.TERMINAL: (0,),
    Op.SEPARABLE: (3, 5),
}
"""The kernel sizes allowed for each kind of layer."""

CONVOLUTIONS = (Op.CONV, Op.SEPARABLE)
"""The kinds of layer that convolve. Their output has as many channels as the stage has filters."""

MERGES = (Op.ADD, Op.CONCAT)
"""The kinds of layer with two predecessors."""

WIRES = frozenset({(Op.IDENTITY, 0), (Op.MAX_POOL, 1), (Op.AVG_POOL, 1)})
"""(kind, kernel) of the layers that compute nothing: their output is what they read."""

LONGEST = 64
"""Most layers of a block, in any space that settings allow."""

_LAYER = re.compile(r"\s*\(" + r"\s*,".join([r"\s*(-?[0-9]{1,9})"] * 5) + r"\s*\)\s*")


@dataclass(frozen=True)
class Block:
    """A legal list of layer codes, the terminal included. Blocks are equal when their codes are.

    Raises `ValueError` that names the layer and the rule, for anything illegal.
    """

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        for position, layer in enumerate(self.layers, start=1):
            _check_layer(position, layer)
            if layer.op == Op.TERMINAL and position < len(self.layers):
                raise ValueError(
                    f"layer {position + 1}: comes after the terminal, which ends the block"
                )
        if not self.layers or self.layers[-1].op != Op.TERMINAL:
            end = len(self.layers) + 1
            raise ValueError(f"layer {end}: no terminal, close the block with {terminal(end)}")

    @classmethod
    def parse(cls, text: str, max_index: int = 23) -> "Block":
        """Read the paper's notation, `(1,4,0,0,0)(2,1,3,1,0)...`; `str` gives it back.

        Space between numbers and layers is ignored. Raises `ValueError` for an illegal block
        and for one with more than `max_index` layers.
        """
        if not isinstance(text, str):  # files of weights may hold anything
            raise ValueError(f"a block is a text, not {text!r:.40}")
        layers: list[Layer] = []
        position, end = 0, len(text.rstrip())
        while position < end:
            match = _LAYER.match(text, position)
            if match is None:
                raise ValueError(
                    f"layer {len(layers) + 1}: cannot read {text[position : position + 20]!r}, "
                    "a layer is written (index,kind,kernel,pred1,pred2)"
                )
            layers.append(_layer(match.groups()))
            position = match.end()
        check_length(len(layers), max_index)
        return cls(tuple(layers))

    def __str__(self) -> str:
        return "".join(map(str, self.layers))

    @cached_property
    def leaves(self) -> tuple[int, ...]:
        """Indices of the layers that no layer reads, ascending; none for the empty block."""
        used = {source for layer in self.layers for source in predecessors(layer)}
        return tuple(layer.index for layer in self.layers[:-1] if layer.index not in used)

    @property
    def density(self) -> float:
        """Edges per node of the block's graph (CVPR 2018, eq. 7).

        Nodes are the block input, every layer but the terminal, and the output; edges are the
        predecessor links and one from each leaf to the output.
        """
        links = sum(len(predecessors(layer)) for layer in self.layers)
        return (links + max(1, len(self.leaves))) / (len(self.layers) + 1)

    @cached_property
    def key(self) -> str:
        """32 hex digits that two blocks share exactly when their layers that compute something are
        the same graph, so that they make the same network.

        The numbers of the layers, the order of operands, identities and poolings of kernel 1 do
        not matter. The digits are the same in every process and on every machine.
        """
        layers, leaves = self.computing_layers()
        node_of = {0: 0} | {layer.index: node for node, layer in enumerate(layers, start=1)}
        labels: list[Label] = [(0, 0)]
        labels += [(int(layer.op), int(layer.kernel)) for layer in layers]
        labels.append((int(Op.TERMINAL), 0))
        sources = [(), *map(predecessors, layers), leaves]
        form = canonical_form(labels, [[node_of[source] for source in read] for read in sources])
        return hashlib.sha256(repr(form).encode()).hexdigest()[:32]

    def computing_layers(self) -> tuple[list[Layer], tuple[int, ...]]:
        """The layers that are not among `WIRES`, and the indices of those whose outputs the block
        concatenates, 0 for the block input.

        A layer that reads a wire has the wire's own predecessor in the code returned.
        """
        computing: list[Layer] = []
        source_of = {0: 0}
        for index, op, kernel, pred1, pred2 in self.layers[:-1]:
            if (op, kernel) in WIRES:
                source_of[index] = source_of[pred1]
            else:
                source_of[index] = index
                computing.append(Layer(index, op, kernel, source_of[pred1], source_of[pred2]))
        return computing, tuple(source_of[leaf] for leaf in self.leaves or (0,))


def predecessors(layer: Layer) -> tuple[int, ...]:
    """Indices of the layers that a layer reads, 0 for the block input; none for the terminal."""
    if layer.op in MERGES:
        return (layer.pred1, layer.pred2)
    return () if layer.op == Op.TERMINAL else (layer.pred1,)


@lru_cache(maxsize=1 << 16)  # a million blocks share a few thousand layers
def _layer(numbers: tuple[str, ...]) -> Layer:
    return Layer(*map(int, numbers))


def terminal(index: int) -> Layer:
    """The layer that closes a block at `index`."""
    return Layer(index, Op.TERMINAL, 0, 0, 0)


def check_length(length: int, max_index: int) -> None:
    """Raise `ValueError` for a block of more layers than `max_index`."""
    if length > max_index:
        raise ValueError(
            f"layer {max_index + 1}: more than {max_index} layers, "
            "the terminal must come at this index or before"
        )


@lru_cache(maxsize=1 << 16)  # a search meets the same few thousand layer codes again and again
def _check_layer(position: int, layer: Layer) -> None:
    """Raise `ValueError` unless the layer is legal at this position."""
    index, op, kernel, pred1, pred2 = layer

    def refuse(rule: str) -> ValueError:
        return ValueError(f"layer {position}: {rule}")

    if index != position:
        raise refuse(f"index {index} is out of sequence, expected {position}")
    if op not in KERNELS:
        raise refuse(f"unknown kind {op}, kinds are 1 to {len(KERNELS)}")
    name = Op(op).name.lower()
    if kernel not in KERNELS[op]:
        raise refuse(f"kernel {kernel} is not allowed for {name}, use {one_of(KERNELS[op])}")
    sources = predecessors(layer)
    for field, value in [("pred1", pred1), ("pred2", pred2)][len(sources) :]:
        if value != 0:
            raise refuse(f"{field} is {value} but {name} does not use it, write 0")
    if position == 1 and op in MERGES:
        raise refuse(f"{name} needs two different predecessors, only the block input is there")
    for source in sources:
        if not 0 <= source < position:
            raise refuse(f"predecessor {source} is not before the layer")
        if source == 0 and position > 1:
            raise refuse("only layer 1 reads the block input 0, put an identity there to read it")
    if len(sources) == 2 and pred1 == pred2:
        raise refuse(f"equal predecessors, {name} reads {pred1} twice")


def one_of(numbers: Iterable[object]) -> str:
    """The choices in words, for example "1, 3 or 5"."""
    *most, last = map(str, numbers)
    return f"{', '.join(most)} or {last}" if most else last
