"""What became of a candidate: trained, stopped, diverged or infeasible."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["trained", "stopped", "diverged", "infeasible"]
KINDS = ("trained", "stopped", "diverged", "infeasible")
OUT_OF_MEMORY = "out of memory"
"""How the reason of a candidate begins that did not fit into memory."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of one candidate's training; a crash or a lost worker is not an outcome.

    `accuracy` is the held-out accuracy in percent after the last epoch, None unless trained.
    `predicted` is what a surrogate expects it to have been, None unless stopped before.
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
        if self.latency is not None and not self.latency > 0:
            raise ValueError(f"latency is {self.latency!r}: give milliseconds, above 0, or None")

    @property
    def expected(self) -> float | None:
        """The accuracy, or what was predicted of it, in percent; None where there is neither."""
        return self.predicted if self.kind == "stopped" else self.accuracy

    @property
    def out_of_memory(self) -> bool:
        """Whether it was memory that it lacked: with a device of its own it might have fitted."""
        return self.kind == "infeasible" and self.reason.startswith(OUT_OF_MEMORY)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = dataclasses.asdict(self)
        for name in ("predicted", "latency"):  # as journals had it before there were any
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
