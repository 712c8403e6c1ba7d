"""Blocks one layer away from a block: what evolution tries, and what an agent imagines."""

from typing import Protocol

import numpy as np

from blockqnn.space.block import Block, Layer, Op
from blockqnn.space.design import Choices

ATTEMPTS = 1000
"""Most changes drawn in search of a legal one: in a space of one block there is none."""


class BlockSpace(Choices[Block], Protocol):
    """A space of blocks of at most `max_index` layers, the terminal counted."""

    @property
    def max_index(self) -> int: ...


def mutate(space: BlockSpace, block: Block, rng: np.random.Generator) -> Block:
    """A block of the space that differs from `block` by one layer replaced, inserted or deleted.

    It is `block` itself where there is no other.
    """
    mutations = (_replace, _insert, _delete)
    for _ in range(ATTEMPTS):
        layers = mutations[int(rng.integers(len(mutations)))](space, block, rng)
        try:
            mutated = Block(tuple(layers))
            space.check(mutated)
        except ValueError:  # equal operands, a hole or too many layers: draw again
            continue
        if mutated != block:
            return mutated
    return block


def _replace(space: BlockSpace, block: Block, rng: np.random.Generator) -> list[Layer]:
    layers = list(block.layers)
    place = int(rng.integers(len(layers)))
    layers[place] = _draw(space, block.layers[:place], rng)
    return layers


def _insert(space: BlockSpace, block: Block, rng: np.random.Generator) -> list[Layer]:
    place = int(rng.integers(len(block.layers)))
    if place + 1 >= space.max_index:
        return []
    later = [_shifted(layer, place + 1, 1) for layer in block.layers[place:]]
    if place == 0 and later[0].op != Op.TERMINAL:  # only the new first layer reads the input
        later[0] = later[0]._replace(pred1=1)
    inserted = _draw(space, block.layers[:place], rng)
    reader = int(rng.integers(len(later)))
    if later[reader].pred1:  # one later layer reads the new one, or it would only ever be a leaf
        later[reader] = later[reader]._replace(pred1=place + 1)
    return [*block.layers[:place], inserted, *later]


def _delete(space: BlockSpace, block: Block, rng: np.random.Generator) -> list[Layer]:
    if len(block.layers) < 2:
        return []
    place = int(rng.integers(len(block.layers) - 1))
    gone = block.layers[place]
    later = []
    for layer in block.layers[place + 1 :]:
        preds = [gone.pred1 if pred == gone.index else pred for pred in layer[3:]]
        later.append(_shifted(layer._replace(pred1=preds[0], pred2=preds[1]), gone.index + 1, -1))
    return [*block.layers[:place], *later]


def _draw(space: BlockSpace, before: tuple[Layer, ...], rng: np.random.Generator) -> Layer:
    layers: tuple[Layer, ...] = space.choices(before)
    return layers[int(rng.integers(len(layers)))]


def _shifted(layer: Layer, first: int, by: int) -> Layer:
    """The layer's code after every index from `first` on has moved by `by`, its own too."""
    moved = [pred + by if pred >= first else pred for pred in (layer.pred1, layer.pred2)]
    return layer._replace(index=layer.index + by, pred1=moved[0], pred2=moved[1])
