"""What each whole iteration of a search came to."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from blockqnn.search.outcome import Kind
from blockqnn.search.records import Result


@dataclass(frozen=True)
class Iteration:
    """What one iteration's candidates came to; accuracy in percent, what was predicted where the
    training was stopped, chance where there was none.
    """

    number: int
    """From 1, as people count."""
    epsilon: float
    accuracies: tuple[float, ...]
    rewards: tuple[float, ...]
    kinds: tuple[Kind, ...]

    @property
    def not_trained(self) -> int:
        """How many candidates diverged or were infeasible."""
        return len(self.kinds) - self.kinds.count("trained") - self.stopped

    @property
    def stopped(self) -> int:
        """How many trainings were stopped: their numbers are predictions."""
        return self.kinds.count("stopped")

    def best(self, values: Sequence[float]) -> float:
        """The highest of these values of the candidates, of those that nobody predicted."""
        pairs = zip(values, self.kinds, strict=True)
        return max((value for value, kind in pairs if kind != "stopped"), default=min(values))


def iterations_of(results: Sequence[Result], chance: float) -> list[Iteration]:
    """The results by the iteration in which their candidates were proposed, also when `async` ones
    came back later. A candidate without an accuracy, or a predicted one, counts as `chance`
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
            )
        )
    return iterations
