"""Regularised evolution (Real et al., AAAI 2019), the stronger baseline.

The population is a queue: the oldest leaves it, however good. A proposal is a mutation of the best
of a random tournament.
"""

from collections import deque
from collections.abc import Container
from typing import Generic

from numpy.random import Generator

from blockqnn.space.design import Choices, D, Rewards


class Evolution(Generic[D]):
    """Evolution of a population, in tournaments. Until it is full, proposals are random walks."""

    def __init__(self, space: Choices[D], *, population: int = 100, tournament: int = 25) -> None:
        self.space = space
        self.tournament = tournament
        self._population: deque[tuple[D, float]] = deque(maxlen=population)

    def propose(self, epsilon: float, rng: Generator, taken: Container[str] = ()) -> D:
        """A mutation of a tournament's winner, whatever epsilon is."""
        if len(self._population) < (self._population.maxlen or 0):
            return self.space.sample(rng)
        picks = rng.choice(len(self._population), size=self.tournament, replace=False)
        parent, _ = max((self._population[int(pick)] for pick in picks), key=lambda entry: entry[1])
        return self.space.mutate(parent, rng)

    def learn_from(self, finished: Rewards[D], rng: Generator, corrected: Rewards[D] = ()) -> None:
        """Add the designs to the population; its oldest make room."""
        self._population.extend(finished)
        better = {design.key: reward for design, reward in corrected}
        for place, (design, reward) in enumerate(self._population):
            self._population[place] = design, better.get(design.key, reward)
