"""What every kind of workers offers, and what can go wrong with one."""

from typing import Protocol

from blockqnn.search.outcome import Outcome
from blockqnn.workers.lines import Message

START_TIMEOUT = 600.0
"""Seconds a worker may take to import torch and load its data."""

KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": str(256 * 2**20),
}
"""Makes glibc keep freed memory: giving it back and taking it again costs a CPU half of its
training time at large batches (benchmarks/training_speed.py).
"""


class WorkerDied(RuntimeError):
    """A worker was lost with a candidate in its hands: the candidate is still pending."""


class Workers(Protocol):
    """Trains candidates, `slots` at a time."""

    @property
    def slots(self) -> int:
        """Candidates to keep in training; may change while a search runs."""

    def train(
        self, number: int, code: str, alone: bool = False, rule: Message | None = None
    ) -> Outcome:
        """Train a candidate, waiting for a free worker. Called from several threads.

        A candidate that runs out of memory beside others, and one to be trained `alone`, gets a
        device of its own. The `rule`, of `blockqnn.search.stopping`, may stop it early. Raises
        `WorkerDied` when the attempt was lost, and `SearchError` for what the user has to mend.
        """

    def forget(self, number: int) -> None:
        """Remove what is kept of a candidate outside of the search's directory: it was told."""

    def close(self) -> None:
        """Let the workers go, in the middle of a training too."""
