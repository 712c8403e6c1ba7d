"""What work takes, as an estimate says it."""

from dataclasses import asdict, dataclass
from typing import Any

FLOW = 1_200_000_000
"""Bytes of memory of a flow and of its Prefect server, which every search and training has."""

JUDGING = 1 / 3
"""Work on a held-out image beside that on a training image: it has no backward pass."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a search or final trainings take on this machine, from beginning to end."""

    trainings: int
    """Trainings, those of further rungs among them."""
    at_a_time: int
    """Trainings that run side by side."""
    each: float
    """Seconds of a training in the mean."""
    seconds: float
    """Seconds until all are done."""
    memory: int
    """Most bytes of main memory of all processes together."""
    device_memory: int | None
    """Most bytes of memory of one GPU; None where none trains."""
    disk: int
    """Bytes of files that are written, beside MLflow's database."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)
