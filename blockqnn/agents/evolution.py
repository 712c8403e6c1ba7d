"""Regularised evolution (Real et al., AAAI 2019): the baseline that is hard to beat.

The population is a queue: the oldest dies, however good. A proposal is a mutation of the best of a
random tournament. The mutations are ours, made for layer codes: replace, insert or delete one
layer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from blockqnn.space import Block, Layer, Op, Space


class Evolution:
    """Ageing evolution with tournament selection; until the population is full it proposes at
    random.
    """

    def __init__(self, space: Space, *, population: int = 100, tournament: int = 25) -> None:
        self.space = space
        self.tournament = tournament
        self._population: deque[tuple[Block, float]] = deque(maxlen=population)

    def propose(self, epsilon: float, rng: np.random.Generator) -> Block:
        """A mutated winner, whatever epsilon is: selection does the exploiting here."""
        if len(self._population) < (self._population.maxlen or 0):
            return self.space.sample(rng)
        picks = rng.choice(len(self._population), size=self.tournament, replace=False)
        parent, _ = max((self._population[int(pick)] for pick in picks), key=lambda entry: entry[1])
        return self.mutate(parent, rng)

    def learn_from(self, finished: Sequence[tuple[Block, float]], rng: np.random.Generator) -> None:
        """Add the blocks; the oldest make room."""
        self._population.extend(finished)

    def mutate(self, block: Block, rng: np.random.Generator) -> Block:
        """A legal block one layer away from `block`."""
        mutations = (self._replace, self._insert, self._delete)
        while True:
            layers = mutations[int(rng.integers(len(mutations)))](block, rng)
            try:
                mutated = Block(tuple(layers))
                self.space.check(mutated)
            except (
                ValueError
            ):  # the change left equal operands, a hole or too many layers: draw again
                continue
            if mutated != block:
                return mutated

    def _replace(self, block: Block, rng: np.random.Generator) -> list[Layer]:
        layers = list(block.layers)
        place = int(rng.integers(len(layers)))
        layers[place] = self._draw(block.layers[:place], rng)
        return layers

    def _insert(self, block: Block, rng: np.random.Generator) -> list[Layer]:
        place = int(rng.integers(len(block.layers)))
        if place + 1 >= self.space.max_index:
            return []
        later = [_shifted(layer, place + 1, 1) for layer in block.layers[place:]]
        if place == 0 and later[0].op != Op.TERMINAL:  # only the new first layer reads the input
            later[0] = later[0]._replace(pred1=1)
        inserted = self._draw(block.layers[:place], rng)
        reader = int(rng.integers(len(later)))
        if later[
            reader
        ].pred1:  # one later layer reads the new one, or it would only ever be a leaf
            later[reader] = later[reader]._replace(pred1=place + 1)
        return [*block.layers[:place], inserted, *later]

    def _delete(self, block: Block, rng: np.random.Generator) -> list[Layer]:
        if len(block.layers) < 2:
            return []
        place = int(rng.integers(len(block.layers) - 1))
        gone = block.layers[place]
        later = []
        for layer in block.layers[place + 1 :]:
            preds = [gone.pred1 if pred == gone.index else pred for pred in layer[3:]]
            later.append(
                _shifted(layer._replace(pred1=preds[0], pred2=preds[1]), gone.index + 1, -1)
            )
        return [*block.layers[:place], *later]

    def _draw(self, before: tuple[Layer, ...], rng: np.random.Generator) -> Layer:
        layers = self.space.choices(before)
        return layers[int(rng.integers(len(layers)))]


def _shifted(layer: Layer, first: int, by: int) -> Layer:
    """The layer after every index from `first` on has moved by `by`."""
    moved = [pred + by if pred >= first else pred for pred in (layer.pred1, layer.pred2)]
    return layer._replace(index=layer.index + by, pred1=moved[0], pred2=moved[1])
