"""Stops a candidate whose learning curve is certain to end badly (the faster version, our reading).

Given the accuracies seen, that of the last epoch has a normal distribution, which the surrogate
knows. A candidate is stopped when even a lucky end of its curve would not bring it among the
better ones.
"""

from collections.abc import Sequence

import numpy as np

from blockqnn.cost import Cost
from blockqnn.search.objective import Objective
from blockqnn.search.records import Candidate, Result
from blockqnn.seeds import generator
from blockqnn.settings import Settings
from blockqnn.surrogate import StoppingRule, Surrogate, block_features


class Stopping:
    """Makes the stopping rules of candidates. An interrupted search goes on with the same ones."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known = -1
        self._surrogate: Surrogate | None = None
        self._enough = 0.0
        """Reward in percent that a candidate has to promise."""

    def rule(
        self, candidate: Candidate, cost: Cost, objective: Objective, results: Sequence[Result]
    ) -> StoppingRule | None:
        """The rule that may stop a candidate's training early, None for never."""
        stopping, seed = self._settings.stopping, self._settings.seed
        if not stopping.worse or candidate.rung:
            return None
        if generator(seed, "spared", candidate.number).random() < stopping.spared:
            return None
        known = len(results) // self._settings.batch * self._settings.batch
        if self._known != known:
            self._known = known
            self._learn(results[:known])
        if self._surrogate is None:
            return None
        features = block_features(candidate.block, cost, candidate.shape)
        needed = objective.accuracy_for(self._enough, candidate.block, cost)
        metric = self._settings.reward.metric
        return StoppingRule.of(self._surrogate, features, needed, stopping.certainty, metric)

    def _learn(self, results: Sequence[Result]) -> None:
        kinds = ("trained", "stopped")
        shown = [
            r
            for r in results
            if r.same_as is None
            and not r.candidate.rung
            and r.outcome.kind in kinds
            and r.outcome.curve
        ]
        if sum(r.outcome.kind == "trained" for r in shown) < self._settings.stopping.after:
            return
        curves = np.full((len(shown), self._settings.recipe.epochs), np.nan)
        for row, result in zip(curves, shown, strict=True):
            seen = [entry[self._settings.reward.metric] for entry in result.outcome.curve]
            row[: len(seen)] = seen
        own = [(r.candidate.block, r.cost, r.candidate.shape) for r in shown]
        features = np.array([block_features(*each) for each in own])
        self._surrogate = Surrogate().fit(features, curves)
        rewards = [result.reward for result in shown]
        self._enough = float(np.quantile(rewards, self._settings.stopping.worse))
