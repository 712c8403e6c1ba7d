"""The baseline every search has to beat: uniform random walks through the space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from blockqnn.space import Block, Space


class RandomWalk:
    """Learns nothing."""

    def __init__(self, space: Space) -> None:
        self.space = space

    def propose(self, epsilon: float, rng: np.random.Generator) -> Block:
        """A uniform random walk, whatever epsilon is."""
        return self.space.sample(rng)

    def learn_from(self, finished: Sequence[tuple[Block, float]], rng: np.random.Generator) -> None:
        """Nothing to learn."""
