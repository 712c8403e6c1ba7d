"""The baseline that every search has to beat: uniform random walks through the space."""

from collections.abc import Container
from typing import Generic

from numpy.random import Generator

from blockqnn.space.design import Choices, D, Rewards


class RandomWalk(Generic[D]):
    """An agent that learns nothing."""

    def __init__(self, space: Choices[D]) -> None:
        self.space = space

    def propose(self, epsilon: float, rng: Generator, taken: Container[str] = ()) -> D:
        """A uniform random walk, whatever epsilon is."""
        return self.space.sample(rng)

    def learn_from(self, finished: Rewards[D], rng: Generator, corrected: Rewards[D] = ()) -> None:
        """Nothing to learn."""
