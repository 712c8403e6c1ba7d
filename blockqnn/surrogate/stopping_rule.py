"""The rule that stops a training whose first epochs make a bad end certain."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from scipy.stats import norm

from blockqnn.surrogate.gaussian_process import Surrogate
from blockqnn.surrogate.kernel import Array


class CertainlyBad(Exception):
    """A training is certain to end badly: `predicted` is its last epoch's accuracy in percent."""

    def __init__(self, predicted: float) -> None:
        super().__init__(f"certain to end badly, at about {predicted:.1f} %")
        self.predicted = predicted


@dataclass(frozen=True)
class StoppingRule:
    """The rule for one candidate, in plain numbers: a worker needs no surrogate."""

    needed: float
    """Least accuracy at the last epoch, in percent, that is worth finishing for."""
    margin: float
    """Standard deviations by which a prediction has to be below `needed`."""
    steps: tuple[tuple[tuple[float, ...], float, float], ...]
    """For one epoch seen, for two, and so on: weights of the accuracies seen and a constant, which
    add up to the predicted accuracy, and its standard deviation."""
    metric: str = "accuracy"
    """Name of the accuracy in the entries of a curve."""

    @classmethod
    def of(
        cls,
        surrogate: Surrogate,
        features: Array,
        needed: float,
        certainty: float,
        metric: str = "accuracy",
    ) -> Self:
        """The rule that a surrogate gives for the network with these features, (d,).

        `certainty` is the probability that a network that is stopped would have stayed below
        `needed`; `metric` names the accuracy in the entries of a curve.
        """
        steps = tuple(
            (tuple(weights.tolist()), constant, deviation)
            for weights, constant, deviation in surrogate.forecasts(features)
        )
        return cls(needed, float(norm.ppf(certainty)), steps, metric)

    def costing(self, points: float) -> Self:
        """The rule for a network whose price turns out higher by so many points of reward."""
        return replace(self, needed=self.needed + points)

    def judge(self, curve: Sequence[Mapping[str, float]]) -> None:
        """Raise `CertainlyBad` if the accuracies of the first epochs make a bad end certain."""
        seen = [entry[self.metric] for entry in curve]
        if not 1 <= len(seen) <= len(self.steps):
            return
        weights, constant, deviation = self.steps[len(seen) - 1]
        predicted = constant + sum(w * accuracy for w, accuracy in zip(weights, seen, strict=True))
        if predicted + self.margin * deviation < self.needed:
            raise CertainlyBad(min(max(predicted, 0.0), 100.0))

    def to_dict(self) -> dict[str, Any]:
        """The rule as plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The rule that `to_dict` gave as plain values."""
        steps = tuple((tuple(w), constant, deviation) for w, constant, deviation in values["steps"])
        return cls(**{**values, "steps": steps})
