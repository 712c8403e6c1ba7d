"""What became of a candidate: trained, diverged or infeasible."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["trained", "diverged", "infeasible"]
KINDS = ("trained", "diverged", "infeasible")
OUT_OF_MEMORY = "out of memory"
"""The reason of a candidate whose training did not fit into memory."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of one candidate's training; a crash or a lost worker is not an outcome.

    `accuracy` is the held-out accuracy in percent after the last epoch, None unless trained.
    `curve` has one mapping an epoch: epoch (from 1), loss, train_accuracy and accuracy (percent),
    learning_rate, seconds. `seconds` is the whole training's time. `reason` says why it was not
    trained.
    """

    kind: Kind
    accuracy: float | None = None
    curve: tuple[Mapping[str, float], ...] = ()
    restarts: int = 0
    seconds: float = 0.0
    reason: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}: choose one of {', '.join(KINDS)}")
        accuracy = self.accuracy
        if self.kind == "trained":
            if accuracy is None or not 0 <= accuracy <= 100:
                raise ValueError(
                    f"accuracy is {accuracy!r}: a trained outcome needs 0 to 100 percent"
                )
        elif accuracy is not None:
            raise ValueError(f"accuracy is {accuracy!r}: only a trained outcome has one")

    @property
    def out_of_memory(self) -> bool:
        """Whether it was memory that it lacked: with a device of its own it might have fitted."""
        return self.kind == "infeasible" and self.reason == OUT_OF_MEMORY

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Outcome:
        """The inverse of `to_dict`; raises ValueError or TypeError for anything else."""
        outcome = cls(**{**values, "curve": tuple(values.get("curve", ()))})
        numbers = [outcome.seconds, outcome.restarts]
        for point in outcome.curve:
            numbers += point.values() if isinstance(point, dict) else [math.nan]
        if not all(type(n) in (int, float) and abs(n) <= sys.float_info.max for n in numbers):
            raise ValueError("a curve, the seconds or the restarts are not finite numbers")
        if not isinstance(outcome.reason, str):
            raise ValueError("the reason is not a text")
        return outcome
