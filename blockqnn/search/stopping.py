"""Stops a candidate whose learning curve is certain to end badly (the faster version, our reading).

What an accuracy at the last epoch will be is a normal distribution, given those seen: the surrogate
says which. A candidate is stopped when even a lucky end of its curve would not bring it among the
better ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import norm

from blockqnn.settings.search import Settings
from blockqnn.cost import Cost
from blockqnn.surrogate.features import block_features
from blockqnn.seeds import generator
from blockqnn.surrogate.gaussian_process import Array, Surrogate

if TYPE_CHECKING:
    from blockqnn.search.history import Candidate, Result


class CertainlyBad(Exception):
    """Raised after an epoch that made it certain; `predicted` is the last epoch's accuracy in
    percent as far as it can be told.
    """

    def __init__(self, predicted: float) -> None:
        super().__init__(f"certain to end badly, at about {predicted:.1f} %")
        self.predicted = predicted


@dataclass(frozen=True)
class StoppingRule:
    """For one candidate: plain numbers, so that a worker needs nothing else."""

    needed: float
    """Accuracy at the last epoch that is worth finishing for, in percent."""
    margin: float
    """Standard deviations that the prediction has to be below it."""
    steps: tuple[tuple[tuple[float, ...], float, float], ...]
    """After one epoch, two, and so on: weights of the accuracies seen, a constant, the deviation of
    what they predict."""

    @classmethod
    def of(
        cls, surrogate: Surrogate, features: Array, needed: float, certainty: float
    ) -> StoppingRule:
        """The rule that a surrogate gives for the network with these features, (d,); `certainty` is
        the probability with which a stopped one would have stayed below `needed`.
        """
        steps = tuple(
            (tuple(weights.tolist()), constant, deviation)
            for weights, constant, deviation in surrogate.forecasts(features)
        )
        return cls(needed, float(norm.ppf(certainty)), steps)

    def costing(self, points: float) -> StoppingRule:
        """The rule for a network that costs so many more points of reward than was known."""
        return replace(self, needed=self.needed + points)

    def judge(self, curve: Sequence[Mapping[str, float]]) -> None:
        """Raise `CertainlyBad` if the accuracies of the first epochs leave no hope."""
        seen = [entry["accuracy"] for entry in curve]
        if not 1 <= len(seen) <= len(self.steps):
            return
        weights, constant, deviation = self.steps[len(seen) - 1]
        predicted = constant + sum(w * accuracy for w, accuracy in zip(weights, seen, strict=True))
        if predicted + self.margin * deviation < self.needed:
            raise CertainlyBad(min(max(predicted, 0.0), 100.0))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"needed": self.needed, "margin": self.margin, "steps": self.steps}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StoppingRule:
        """The inverse of `to_dict`."""
        steps = tuple((tuple(w), constant, deviation) for w, constant, deviation in values["steps"])
        return cls(values["needed"], values["margin"], steps)


class Stopping:
    """Makes the rules of a search's candidates from the results of its whole iterations, so that an
    interrupted search makes the same ones.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known = -1
        self._surrogate: Surrogate | None = None
        self._enough = 0.0
        """The reward that is not bad, in percent."""

    def rule(
        self, candidate: Candidate, cost: Cost, costs: float, results: Sequence[Result]
    ) -> StoppingRule | None:
        """By what to stop a candidate, None for never; `costs` is its accuracy less its reward."""
        stopping, seed = self._settings.stopping, self._settings.seed
        if not stopping.worse:
            return None
        if generator(seed, "spared", candidate.number).random() < stopping.spared:
            return None
        known = len(results) // self._settings.batch * self._settings.batch
        if self._known != known:
            self._known = known
            self._learn(results[:known])
        if self._surrogate is None:
            return None
        features = block_features(candidate.block, cost)
        return StoppingRule.of(self._surrogate, features, self._enough + costs, stopping.certainty)

    def _learn(self, results: Sequence[Result]) -> None:
        kinds = ("trained", "stopped")
        shown = [
            r for r in results if r.same_as is None and r.outcome.kind in kinds and r.outcome.curve
        ]
        if sum(r.outcome.kind == "trained" for r in shown) < self._settings.stopping.after:
            return
        curves = np.full((len(shown), self._settings.recipe.epochs), np.nan)
        for row, result in zip(curves, shown, strict=True):
            seen = [entry["accuracy"] for entry in result.outcome.curve]
            row[: len(seen)] = seen
        features = np.array([block_features(r.candidate.block, r.cost) for r in shown])
        self._surrogate = Surrogate().fit(features, curves)
        rewards = [result.reward for result in shown]
        self._enough = float(np.quantile(rewards, self._settings.stopping.worse))
