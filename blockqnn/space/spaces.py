"""The search spaces: which layer may come next.

A space is given by the kinds of layer with their kernels, the most layers and the most leaves of a
block.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations

from numpy.random import Generator

from blockqnn.space.block import (
    KERNELS,
    MERGES,
    Block,
    Layer,
    Op,
    check_length,
    one_of,
    predecessors,
    terminal,
)
from blockqnn.space.mutation import mutate

Operations = tuple[tuple[int, int], ...]
"""(kind, kernel) of the layers that a space offers, in the order of its choices."""

PAPER_OPERATIONS: Operations = tuple(
    (op, kernel)
    for op in (Op.CONV, Op.MAX_POOL, Op.AVG_POOL, Op.IDENTITY, Op.ADD, Op.CONCAT)
    for kernel in KERNELS[op]
)
"""(kind, kernel) of every layer but the terminal in the paper's table 1."""

V2_OPERATIONS: Operations = (
    (Op.SEPARABLE, 3),
    (Op.SEPARABLE, 5),
    (Op.CONV, 1),
    (Op.MAX_POOL, 3),
    (Op.AVG_POOL, 3),
    (Op.IDENTITY, 0),
    (Op.ADD, 0),
    (Op.CONCAT, 0),
)
"""(kind, kernel) of the layers of V2: separable convolutions in place of the paper's 3x3 and 5x5
ones, and no poolings of kernel 1, which compute nothing."""


@dataclass(frozen=True)
class Space:
    """All blocks of layers offered in `operations`, of at most `max_index` layers, the terminal
    counted, and, unless `max_width` is None, of at most `max_width` leaves.

    Leaves are what a block concatenates into its output, and what the next block's convolutions
    read: they set the width of the network. A terminal is always offered; operations are (kind,
    kernel), in the order in which choices are listed. The defaults are the 2018 paper's space.
    Raises `ValueError` that names the field, its value and the remedy.
    """

    max_index: int = 23
    operations: Operations = PAPER_OPERATIONS
    max_width: int | None = None

    def __post_init__(self) -> None:
        if self.max_index < 1:
            raise ValueError(f"max_index is {self.max_index}: use at least 1, the terminal alone")
        if self.max_width is not None and self.max_width < 1:
            raise ValueError(f"max_width is {self.max_width}: use at least 1 leaf, or None")
        for op, kernel in self.operations:
            if op == Op.TERMINAL or kernel not in KERNELS.get(op, ()):
                raise ValueError(f"operations has {(op, kernel)}: give kinds and their kernels")
        if len(self._offered) < len(self.operations):
            raise ValueError(f"operations is {self.operations}: give each once")

    def next_layers(self, index: int) -> tuple[Layer, ...]:
        """Every layer that `operations` make at `index`, the terminal last; at the last index the
        terminal only. `choices` says which of them a `max_width` allows after given layers.

        Operands of an add or a concat come in ascending order. Raises `ValueError` for an index
        outside 1 to `max_index`.
        """
        if not 1 <= index <= self.max_index:
            raise ValueError(f"no layer at index {index}: use 1 to {self.max_index}")
        return _layers(self.operations, index, last=index == self.max_index)

    def choices(self, layers: Sequence[Layer]) -> tuple[Layer, ...]:
        """Every layer that may come after the first layers of a block, in the order of
        `next_layers`: exactly those after which the block can still be ended within the limits.

        Nothing comes after a terminal. Without a `max_width` the same as `next_layers`. `layers`
        are not checked. Raises `ValueError` when there are `max_index` of them.
        """
        if layers and layers[-1].op == Op.TERMINAL:
            return ()
        index = len(layers) + 1
        offered = self.next_layers(index)
        if self.max_width is None:
            return offered
        read = {source for layer in layers for source in predecessors(layer)}
        leaves = tuple(place for place in range(1, index) if place not in read)
        # Each later layer before the terminal can merge two leaves into one.
        merges = self.max_index - 1 - index if self._merges else 0
        spare = self.max_width + merges - len(leaves)
        if index == self.max_index or (spare >= 1 and len(leaves) <= self.max_width):
            return offered
        return _narrowed(self.operations, index, leaves, spare, len(leaves) <= self.max_width)

    def sample(self, rng: Generator) -> Block:
        """Return the block of a random walk in which every legal next layer is equally likely."""
        layers: list[Layer] = []
        while choices := self.choices(layers):
            layers.append(choices[rng.integers(len(choices))])
        return Block(tuple(layers))

    def design(self, layers: Sequence[Layer]) -> Block:
        """The block of these layers, the terminal among them."""
        return Block(tuple(layers))

    def mutate(self, block: Block, rng: Generator) -> Block:
        """Another block of this space, one layer away."""
        return mutate(self, block, rng)

    @property
    def narrowed(self) -> bool:
        """Whether what may come next depends on more than the number of layers."""
        return self.max_width is not None

    def check(self, block: Block) -> None:
        """Raise `ValueError`, naming the layer and the rule, for a block not of this space."""
        check_length(len(block.layers), self.max_index)
        offered = self._offered
        for layer in block.layers[:-1]:
            if (layer.op, layer.kernel) not in offered:
                raise ValueError(
                    f"layer {layer.index}: {_named(layer.op, layer.kernel)} is not in this space, "
                    f"use {one_of(_named(*operation) for operation in self.operations)}"
                )
        if self.max_width is not None and len(block.leaves) > self.max_width:
            raise ValueError(
                f"layer {len(block.layers)}: {len(block.leaves)} leaves, "
                f"{one_of(block.leaves).replace(' or ', ' and ')}, are more than {self.max_width}, "
                "merge some before the terminal"
            )

    @cached_property
    def _offered(self) -> frozenset[tuple[int, int]]:
        return frozenset(self.operations)

    @cached_property
    def _merges(self) -> bool:
        return any(op in MERGES for op, _ in self.operations)


V1 = Space()
"""The 2018 paper's space."""

V2 = Space(12, V2_OPERATIONS, 4)
"""A tighter space, our reading. Of the journal version (arXiv 1808.05584) we know only that its
faster search has a more constrained space; depthwise convolutions the 2018 paper names as future
work. The limits are ours: the published blocks have 11 to 15 layers and 5 or 6 leaves, and since
the next block reads all leaves, its convolutions cost in proportion to them. 4 leaves keep that
down; 12 layers have room for them as branches of two layers, with merges. Of 2,000 random blocks
22 % need more than 16 GiB with the paper's network and batch, of V1's half: a concat inside a block
may still widen it, and what a network costs is for `budget` to limit."""

VERSIONS = {"v1": V1, "v2": V2}
"""The spaces with a name."""


@lru_cache(maxsize=1 << 12)
def _layers(operations: Operations, index: int, *, last: bool) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    before = (0,) if index == 1 else range(1, index)
    for op, kernel in () if last else operations:
        if op in MERGES:
            layers += [Layer(index, op, kernel, *pair) for pair in combinations(before, 2)]
        else:
            layers += [Layer(index, op, kernel, source, 0) for source in before]
    return (*layers, terminal(index))


@lru_cache(maxsize=1 << 12)  # a search meets the same leaves again and again
def _narrowed(
    operations: Operations, index: int, leaves: tuple[int, ...], spare: int, may_end: bool
) -> tuple[Layer, ...]:
    """The layers at an index that add at most `spare` leaves to those that are there."""
    *layers, end = _layers(operations, index, last=False)
    kept = [new for new in layers if 1 - sum(read in leaves for read in predecessors(new)) <= spare]
    return (*kept, end) if may_end else tuple(kept)


def _named(op: int, kernel: int) -> str:
    return Op(op).name.lower() + (f" {kernel}x{kernel}" if kernel else "")
