"""Which candidates are trained further: successive halving, as it goes (ASHA, Li et al., 2020).

Every candidate gets the short training of the first rung. Of those trained on a rung, the best
share goes on to the next one, from the weights that it has. Who goes on is decided with what is
known so far, so that no worker waits for a rung to be full.
"""

from bisect import insort
from collections.abc import Sequence

from blockqnn.search.records import Candidate, Result
from blockqnn.settings import RungSettings

KEPT = 64
"""Results of a rung that may still go on, at least; their weights stay on disk."""


class Rungs:
    """What is known of the rungs of one search. The same results give the same promotions."""

    def __init__(self, rungs: Sequence[RungSettings], batch: int) -> None:
        self._shares = [rung.share for rung in rungs]
        self._kept = max(KEPT, batch)
        self._finished = [0] * (len(rungs) + 1)
        self._promoted = [0] * (len(rungs) + 1)
        self._ready: list[list[tuple[float, int]]] = [[] for _ in rungs]
        """Of each rung but the last, the best results that have not gone on, best first: the
        negative reward and the number."""
        self._gains: list[list[float]] = [[] for _ in rungs]
        """Of each further rung, by how much the rewards of what was trained there are above those
        of the rung before."""

    def add(self, result: Result, before: Result | None) -> list[int]:
        """Take in a result; `before` is that of the same network on the rung before, if any.

        Returns the numbers of candidates that will never go on from where they are.
        """
        rung, number = result.candidate.rung, result.candidate.number
        if result.same_as is not None:
            return []
        if before is not None and result.outcome.kind == "trained":
            self._gains[rung - 1].append(result.reward - before.reward)
        if result.outcome.kind != "infeasible":
            self._finished[rung] += 1
        if rung == len(self._shares) or result.outcome.kind != "trained":
            return [number]
        ready = self._ready[rung]
        insort(ready, (-result.reward, number))
        return [ready.pop()[1]] if len(ready) > self._kept else []

    def promoted(self, candidate: Candidate) -> None:
        """Take in that a candidate is proposed for a further rung."""
        assert candidate.of is not None
        below = candidate.rung - 1
        self._promoted[below] += 1
        self._ready[below] = [each for each in self._ready[below] if each[1] != candidate.of]

    def due(self, most: int) -> list[int]:
        """The numbers of at most so many candidates that go on now, from the highest rung first."""
        found: list[int] = []
        for rung in reversed(range(len(self._shares))):
            places = int(self._shares[rung] * self._finished[rung]) - self._promoted[rung]
            found += [number for _, number in self._ready[rung][: max(0, places)]]
        return found[:most]

    @property
    def ready(self) -> set[int]:
        """The numbers of all candidates that may go on at some time."""
        return {number for ready in self._ready for _, number in ready}

    def value(self, result: Result) -> float:
        """What a reward would be on the first rung: less what networks gain from rung to rung."""
        value = result.reward
        for gains in self._gains[: result.candidate.rung]:
            value -= sum(gains) / len(gains) if gains else 0.0
        return value
