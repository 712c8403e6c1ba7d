"""What every kind of workers offers, what is said to a worker and what it answers."""

from typing import Any, Protocol, TypedDict

from blockqnn.search.outcome import Outcome
from blockqnn.search.records import Candidate
from blockqnn.surrogate import StoppingRule

START_TIMEOUT = 600.0
"""Seconds that a worker may take to import torch and load its data."""

CLOSED = "the workers are closed"
"""What a `SearchError` says of a candidate that was in training when the workers were closed."""

Rule = dict[str, Any]
"""A `StoppingRule` as plain values."""


class Begin(TypedDict):
    """The first message to a process of this machine that trains candidates."""

    settings: dict[str, Any]
    directory: str
    device: str
    threads: int
    share: int
    """Processes among which the free memory of a CPU is divided."""


class GatewayBegin(TypedDict):
    """The first message to the process between a search and Ray."""

    settings: dict[str, Any]
    place: str
    """Directory or URL of the work on candidates, seen by every node."""
    address: str | None
    temporary: str | None
    """Directory for the files of a Ray that the gateway starts and ends, None for no such Ray."""


class NodeBegin(TypedDict):
    """What a Ray task is told beside its candidate."""

    settings: dict[str, Any]
    threads: int
    share: int
    """Candidates that are in training on one device at the same time."""
    place: str


class CandidateTask(TypedDict):
    """A candidate that a worker is asked to train."""

    number: int
    code: str
    shape: dict[str, Any]
    """What its network has of its own beside the settings': a `Shape` as plain values."""
    rung: int
    of: int | None
    """Number of its candidate on the rung before, where its weights are."""
    alone: bool
    """Whether no other candidate is in training on the same device."""
    rule: Rule | None


def candidate_task(number: int, code: str) -> CandidateTask:
    """The first training of a block in the network of the settings."""
    first: CandidateTask = {
        "number": number,
        "code": code,
        "shape": {},
        "rung": 0,
        "of": None,
        "alone": False,
        "rule": None,
    }
    return first


def task_of(candidate: Candidate, rule: StoppingRule | None = None) -> CandidateTask:
    """The training of a candidate, which the rule may stop early."""
    return {
        **candidate_task(candidate.number, str(candidate.block)),
        "shape": candidate.shape.to_dict(),
        "rung": candidate.rung,
        "of": candidate.of,
        "rule": None if rule is None else rule.to_dict(),
    }


class Answer(TypedDict, total=False):
    """What a worker says of an attempt: its outcome, why it was lost, or what the user has to mend.

    A Ray task says first that it has `begun`, and adds the id of its node. The gateway adds the
    candidate's number, and whether the candidate may be to `blame`.
    """

    outcome: dict[str, Any]
    lost: str
    error: str
    begun: bool
    node: str
    number: int
    blame: bool


class WorkerDied(RuntimeError):
    """A worker was lost with a candidate in its hands: the candidate is still pending."""


class Workers(Protocol):
    """Trains candidates, `slots` at a time."""

    @property
    def slots(self) -> int:
        """Candidates to keep in training; may change while a search runs."""

    def train(self, task: CandidateTask) -> Outcome:
        """Train a candidate, waiting for a free worker. Called from several threads.

        A candidate that runs out of memory while others train on its device gets a device of its
        own, and so does one to be trained `alone`. The `rule` may stop it early. Raises
        `WorkerDied` when the attempt was lost, and `SearchError` for what the user has to mend.
        """

    def forget(self, number: int) -> None:
        """Remove what is kept of a candidate outside of the search's directory, if anything is."""
        return

    def close(self) -> None:
        """End the workers, in the middle of a training too; it goes on when the search does."""
        return
