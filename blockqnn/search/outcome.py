"""What became of a candidate: it was trained, stopped or infeasible, or it diverged."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal["trained", "stopped", "diverged", "infeasible"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OUT_OF_MEMORY = "out of memory"
"""The beginning of the reason of a candidate that did not fit into memory."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of one candidate's training; a crash or a lost worker is not an outcome.

    `accuracy` is the held-out accuracy in percent after the last epoch, None unless trained;
    `balanced_accuracy` the mean of the classes' accuracies, None where the reward is not made of
    it. `predicted` is what a surrogate expects of whichever the reward is made of, None unless
    stopped.
    `curve` has one mapping an epoch: epoch (from 1), loss, train_accuracy and accuracy (percent),
    learning_rate, seconds. `seconds` is the whole training's time. `reason` says why it was not
    trained. `latency` are the milliseconds of a forward pass, None where they were not measured.
    """

    kind: Kind
    accuracy: float | None = None
    curve: tuple[Mapping[str, float], ...] = ()
    restarts: int = 0
    seconds: float = 0.0
    reason: str = ""
    predicted: float | None = None
    latency: float | None = None
    balanced_accuracy: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}: choose one of {', '.join(KINDS)}")
        for name, kind in ("accuracy", "trained"), ("predicted", "stopped"):
            value = getattr(self, name)
            if self.kind == kind:
                if value is None or not 0 <= value <= 100:
                    raise ValueError(
                        f"{name} is {value!r}: a {kind} outcome needs 0 to 100 percent"
                    )
            elif value is not None:
                raise ValueError(f"{name} is {value!r}: only a {kind} outcome has one")
        balanced = self.balanced_accuracy
        if balanced is not None and not (self.kind == "trained" and 0 <= balanced <= 100):
            raise ValueError(f"balanced_accuracy is {balanced!r}: a trained outcome has 0 to 100")
        if self.latency is not None and not self.latency > 0:
            raise ValueError(f"latency is {self.latency!r}: give milliseconds, above 0, or None")

    @property
    def expected(self) -> float | None:
        """The accuracy in percent that the reward is made of, the balanced one if it was measured,
        or the predicted one; None where there is neither.
        """
        if self.kind == "stopped":
            return self.predicted
        return self.accuracy if self.balanced_accuracy is None else self.balanced_accuracy

    @property
    def out_of_memory(self) -> bool:
        """Whether the candidate did not fit into memory; with more of it, it might."""
        return self.kind == "infeasible" and self.reason.startswith(OUT_OF_MEMORY)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = dataclasses.asdict(self)
        # left out, as before there were any
        for name in ("predicted", "latency", "balanced_accuracy"):
            if values[name] is None:
                del values[name]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Outcome:
        """The inverse of `to_dict`; raises ValueError or TypeError for anything else."""
        outcome = cls(**{**values, "curve": tuple(values.get("curve", ()))})
        numbers = [outcome.seconds, outcome.restarts, outcome.latency or 0.0]
        for point in outcome.curve:
            numbers += point.values() if isinstance(point, dict) else [math.nan]
        if not all(type(n) in (int, float) and abs(n) <= sys.float_info.max for n in numbers):
            raise ValueError("a curve, the seconds or the restarts are not finite numbers")
        if not isinstance(outcome.reason, str):
            raise ValueError("the reason is not a text")
        return outcome
