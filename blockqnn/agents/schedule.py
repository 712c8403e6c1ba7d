"""How exploration fades during a search (CVPR 2018, section 4.2)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from blockqnn.settings.search import PAPER_SCHEDULE


@dataclass(frozen=True)
class EpsilonSchedule:
    """Epsilon, the probability of a random action, by iteration."""

    phases: tuple[tuple[float, int], ...]
    """Pairs of an epsilon and the number of iterations that it is kept for."""

    @classmethod
    def paper(cls) -> Self:
        """The 178 iterations of the 2018 search: 95 at random, then 1.0 falls to 0.1."""
        return cls(PAPER_SCHEDULE)

    @property
    def iterations(self) -> int:
        """Number of iterations in all phases."""
        return sum(count for _, count in self.phases)

    def at(self, iteration: int) -> float:
        """Epsilon of an iteration, counted from 0. Raises IndexError outside the schedule."""
        left = iteration
        for epsilon, count in self.phases:
            if 0 <= left < count:
                return epsilon
            left -= count
        raise IndexError(f"iteration is {iteration}: the schedule has 0 to {self.iterations - 1}")

    def differs_from_prefix(self, begun: Iterable[tuple[float, int]]) -> int | None:
        """The first iteration with another epsilon than in the phases `begun`, or None."""
        old = EpsilonSchedule(tuple(begun))
        for iteration in range(old.iterations):
            if iteration >= self.iterations or self.at(iteration) != old.at(iteration):
                return iteration
        return None
