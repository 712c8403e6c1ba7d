"""How exploration fades (paper section 4.2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from blockqnn.settings.search import PAPER_SCHEDULE


@dataclass(frozen=True)
class EpsilonSchedule:
    """Pairs of epsilon and the number of iterations it holds for."""

    phases: tuple[tuple[float, int], ...]

    @classmethod
    def paper(cls) -> EpsilonSchedule:
        """The 178 iterations of the 2018 search: 95 at random, then 1.0 falls to 0.1."""
        return cls(PAPER_SCHEDULE)

    @property
    def iterations(self) -> int:
        """Iterations in all."""
        return sum(count for _, count in self.phases)

    def at(self, iteration: int) -> float:
        """Epsilon of an iteration counted from 0; raises IndexError outside the schedule."""
        left = iteration
        for epsilon, count in self.phases:
            if 0 <= left < count:
                return epsilon
            left -= count
        raise IndexError(f"iteration is {iteration}: the schedule has 0 to {self.iterations - 1}")

    def differs_from_prefix(self, begun: Iterable[tuple[float, int]]) -> int | None:
        """First iteration that differs from a schedule begun earlier, None where this one continues
        it.
        """
        old = EpsilonSchedule(tuple(begun))
        for iteration in range(old.iterations):
            if iteration >= self.iterations or self.at(iteration) != old.at(iteration):
                return iteration
        return None
