"""When a training is certain to end badly, told from its first epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy.stats import norm

from blockqnn.surrogate.gaussian_process import Array, Surrogate


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
