"""How blocks are stacked, as a choice of the search: the shape of a network is designed too."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import product, zip_longest
from typing import Any, Self

from numpy.random import Generator

from blockqnn.space.block import CONVOLUTIONS, Block, Op, one_of, predecessors
from blockqnn.space.canonical import canonical_form
from blockqnn.space.skeleton import CONNECTIONS, STEM_POOLS
from blockqnn.space.spaces import Space

MUTATED = 3
"""One of so many mutations changes the shape, the others the block."""

MOST = 4096
"""Most shapes of a space."""

MOST_STAGES = 8
"""Most stages of networks whose shape is chosen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What a network has of its own; the rest, which is None, is as the settings have it. Raises
    `ValueError` for what is none.

    Its text has the parts that were chosen, such as `half:1-2-1:shortcut`, without filters.
    """

    filters: tuple[int, ...] | None = None
    """Filters of the stages."""
    skeleton: str | None = None
    """What surrounds the blocks: a name in `STEM_POOLS`."""
    repeats: tuple[int, ...] | None = None
    """Blocks of each stage, which are the first ones of the settings, or one number for all."""
    connections: str | None = None
    """How the blocks of a stage are connected: one of `CONNECTIONS`."""

    def __post_init__(self) -> None:
        for name, known in (("skeleton", STEM_POOLS), ("connections", CONNECTIONS)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value in known):
                raise ValueError(f"{name} is {value!r:.40}: give {one_of(known)}")
        for name in ("filters", "repeats"):
            numbers = getattr(self, name)
            whole = numbers is None or all(type(each) is int and each > 0 for each in numbers)
            if not whole or numbers == ():
                raise ValueError(f"{name} is {numbers!r:.40}: give numbers of 1 or more")

    def __str__(self) -> str:
        repeats = "-".join(map(str, self.repeats or ()))
        return ":".join(filter(None, (self.skeleton, repeats, self.connections)))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the shape with that text, its parts in any order.

        Raises `ValueError` that names the part and what to give instead.
        """
        if not isinstance(text, str):  # files may hold anything
            raise ValueError(f"a shape is a text, not {text!r:.40}")
        found: dict[str, Any] = {}
        for part in filter(None, text.split(":")):
            name = "repeats"
            if part in STEM_POOLS or part in CONNECTIONS:
                name = "skeleton" if part in STEM_POOLS else "connections"
            if name in found:
                raise ValueError(f"{part!r} is a second value for {name}: give one")
            found[name] = _repeats(part) if name == "repeats" else part
        return cls(**found)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the shape of `to_dict`; other values are passed over."""
        own: dict[str, Any] = {name: values[name] for name in cls.__slots__ if name in values}
        for name in own.keys() & {"filters", "repeats"}:
            own[name] = tuple(own[name])
        return cls(**own)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without those that are None."""
        own = {name: getattr(self, name) for name in self.__slots__}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in own.items()
            if value is not None
        }

    @property
    def chosen(self) -> Self:
        """What of it is chosen: filters follow from the cost that a network shall have."""
        return type(self)(
            skeleton=self.skeleton, repeats=self.repeats, connections=self.connections
        )


AS_SET = Shape()
"""The shape of a network that is all as the settings have it."""


@dataclass(frozen=True)
class ShapedBlock:
    """A design of a space in which the shape is chosen first, then the layers of the block."""

    shape: Shape
    block: Block

    def __str__(self) -> str:
        return f"{self.block}:{self.shape}"

    @property
    def layers(self) -> tuple[Any, ...]:
        """The shape, and the block's layers."""
        return (self.shape, *self.block.layers)

    @cached_property
    def key(self) -> str:
        """32 hex digits that designs share when they make the same network.

        Where blocks of a stage and connections were chosen, that is seen from the whole stage: two
        blocks of one convolution are one of two, and a shortcut around a convolution is an add.
        """
        shape, stages = self.shape, [self.block.key]
        if shape.repeats is not None and shape.connections is not None:
            shape = replace(shape, repeats=None, connections=None)
            repeats, connections = self.shape.repeats, self.shape.connections
            stages = [_stage_form(self.block, each, connections or "") for each in repeats or ()]
        return hashlib.sha256(f"{shape} {stages}".encode()).hexdigest()[:32]


@lru_cache(maxsize=1 << 14)
def _stage_form(block: Block, repeats: int, connections: str) -> str:
    """A text that stages have in common exactly when they are the same graph."""
    layers, ends = block.computing_layers()
    made_by = {layer.index: layer.op for layer in layers}
    labels: list[tuple[int, int]] = [(0, 0)]
    sources: list[list[int]] = [[]]

    def node(label: tuple[int, int], read: list[int]) -> int:
        labels.append(label)
        sources.append(read)
        return len(labels) - 1

    before, output = None, 0
    for _ in range(repeats):
        entering = output
        if connections == "concat" and before is not None:
            entering = node((int(Op.CONCAT), 0), [before, output])
        place = {0: entering}
        for layer in layers:
            read = [place[source] for source in predecessors(layer)]
            place[layer.index] = node((int(layer.op), int(layer.kernel)), read)
        leaves = [place[end] for end in ends]
        made = leaves[0] if len(leaves) == 1 else node((int(Op.TERMINAL), 0), leaves)
        if connections == "shortcut":
            # the input is brought to the width of the output, which an add within a block brings
            # to the stage's filters: the same where the output has these
            same = len(ends) == 1 and made_by.get(ends[0]) in CONVOLUTIONS
            made = node((int(Op.ADD), 0 if same else 1), [made, entering])
        before, output = output, made
    node((int(Op.TERMINAL), 1), [output])
    return repr(canonical_form(labels, sources))


def design_of(block: Block, shape: Shape) -> Block | ShapedBlock:
    """Return the design that was chosen: the block alone where nothing of the shape was."""
    return block if shape.chosen == AS_SET else ShapedBlock(shape.chosen, block)


def parts_of(design: Block | ShapedBlock) -> tuple[Block, Shape]:
    """Return the block of a design and what was chosen of the shape."""
    return (design.block, design.shape) if isinstance(design, ShapedBlock) else (design, AS_SET)


def shapes_of(
    stages: Sequence[int],
    skeletons: Sequence[str],
    repeats: Sequence[int],
    connections: Sequence[str],
) -> tuple[Shape, ...]:
    """Return every shape with one of the numbers of `stages`, one of the repeats for each stage,
    one of the skeletons and one of the connections; what is offered nothing of is left as it is.
    Connection concat, which joins blocks of a stage, is left out where every stage has one block.
    """
    each: list[tuple[int, ...] | None] = [None]
    if repeats:
        each = [own for count in stages for own in product(repeats, repeat=count)]
    found = product(skeletons or (None,), each, connections or (None,))
    return tuple(
        Shape(skeleton=skeleton, repeats=own, connections=connection)
        for skeleton, own, connection in found
        if not (connection == "concat" and own is not None and max(own) == 1)
    )


@dataclass(frozen=True)
class ShapedSpace:
    """All blocks of a space in every one of the shapes."""

    space: Space
    shapes: tuple[Shape, ...]

    @property
    def narrowed(self) -> bool:
        """Whether what may come next depends on more than the number of choices made."""
        return self.space.narrowed

    def next_layers(self, index: int) -> tuple[Any, ...]:
        """The shapes, then every layer that some block of the space has at a place."""
        return self.shapes if index == 1 else self.space.next_layers(index - 1)

    def choices(self, layers: Sequence[Any]) -> tuple[Any, ...]:
        """The shapes, then what may come after the first layers of a block."""
        return self.space.choices(layers[1:]) if layers else self.shapes

    def design(self, layers: Sequence[Any]) -> ShapedBlock:
        """The design of a shape and the layers of a block, the terminal among them."""
        return ShapedBlock(layers[0], self.space.design(layers[1:]))

    def sample(self, rng: Generator) -> ShapedBlock:
        """A design in which every choice is equally likely."""
        shape = self.shapes[int(rng.integers(len(self.shapes)))]
        return ShapedBlock(shape, self.space.sample(rng))

    def mutate(self, design: ShapedBlock, rng: Generator) -> ShapedBlock:
        """Another design with one layer of the block changed, or one part of the shape."""
        near = self._near.get(design.shape)
        if near is None:
            near = self._near[design.shape] = self._neighbours(design.shape)
        if near and rng.integers(MUTATED) == 0:
            return ShapedBlock(near[int(rng.integers(len(near)))], design.block)
        return ShapedBlock(design.shape, self.space.mutate(design.block, rng))

    def check(self, design: ShapedBlock) -> None:
        """Raise `ValueError` for a shape or a block that is not of this space."""
        if design.shape not in self.shapes:
            raise ValueError(f"shape is {design.shape}: this space has {len(self.shapes)} others")
        self.space.check(design.block)

    @cached_property
    def _near(self) -> dict[Shape, list[Shape]]:
        """Neighbours that were asked for."""
        return {}

    def _neighbours(self, shape: Shape) -> list[Shape]:
        """The shapes that differ from one in a single part; each stage's blocks are one, and so is
        a last stage.
        """
        parts = _parts(shape)
        return [
            other
            for other in self.shapes
            if sum(a != b for a, b in zip_longest(parts, _parts(other))) == 1
        ]


def _parts(shape: Shape) -> tuple[Any, ...]:
    return (shape.skeleton, shape.connections, *(shape.repeats or ()))


def _repeats(part: str) -> tuple[int, ...]:
    numbers = part.split("-")
    if not all(number.isdecimal() and 1 <= int(number) <= 999 for number in numbers):
        raise ValueError(
            f"{part!r} is no part of a network's shape: give {', '.join(STEM_POOLS)}, "
            f"{', '.join(CONNECTIONS)}, or blocks a stage such as 2 or 1-2-1"
        )
    return tuple(map(int, numbers))
