"""The accuracies and rewards of a search, iteration by iteration."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from blockqnn.search.outcome import Kind
from blockqnn.search.records import Result


@dataclass(frozen=True)
class Iteration:
    """Accuracies (percent), rewards, kinds of outcome and rungs of one iteration's candidates."""

    number: int
    """Number of the iteration, from 1."""
    epsilon: float
    accuracies: tuple[float, ...]
    """Held-out accuracies: predicted ones of stopped trainings, chance where there is none."""
    rewards: tuple[float, ...]
    kinds: tuple[Kind, ...]
    rungs: tuple[int, ...]

    def first(self, values: Sequence[float]) -> list[float]:
        """Those of the candidates' `values` that come of a first training, not of a further rung;
        all of them where no candidate was new.
        """
        pairs = zip(values, self.rungs, strict=True)
        return [value for value, rung in pairs if rung == 0] or list(values)

    @property
    def not_trained(self) -> int:
        """Number of candidates that diverged or were infeasible."""
        return sum(kind not in ("trained", "stopped") for kind in self.kinds)

    def best(self, values: Sequence[float]) -> float:
        """The highest of the candidates' `values`, leaving out those of stopped trainings."""
        pairs = zip(values, self.kinds, strict=True)
        return max((value for value, kind in pairs if kind != "stopped"), default=min(values))


def iterations_of(results: Sequence[Result], chance: float) -> list[Iteration]:
    """The results by the iteration in which their candidates were proposed, also when they came
    back later. A candidate with neither a measured nor a predicted accuracy counts as `chance`
    (percent).
    """
    ordered = sorted(results, key=lambda result: result.candidate.number)
    iterations = []
    for number, group in groupby(ordered, key=lambda result: result.candidate.iteration):
        members = list(group)
        scores = [member.outcome.expected for member in members]
        iterations.append(
            Iteration(
                number + 1,
                members[0].candidate.epsilon,
                tuple(chance if score is None else score for score in scores),
                tuple(member.reward for member in members),
                tuple(member.outcome.kind for member in members),
                tuple(member.candidate.rung for member in members),
            )
        )
    return iterations
