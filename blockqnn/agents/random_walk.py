"""The baseline that every search has to beat: uniform random walks through the space."""

from collections.abc import Container, Sequence
from typing import Generic

import numpy as np

from blockqnn.space.design import Choices, D


class RandomWalk(Generic[D]):
    """An agent that learns nothing."""

    def __init__(self, space: Choices[D]) -> None:
        self.space = space

    def propose(self, epsilon: float, rng: np.random.Generator, taken: Container[str] = ()) -> D:
        """A uniform random walk, whatever epsilon is."""
        return self.space.sample(rng)

    def learn_from(
        self,
        finished: Sequence[tuple[D, float]],
        rng: np.random.Generator,
        corrected: Sequence[tuple[D, float]] = (),
    ) -> None:
        """Nothing to learn."""
