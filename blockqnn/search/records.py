"""What a search records: the task, its candidates, their results, and what these came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from blockqnn.cost import Cost
from blockqnn.search.outcome import Outcome
from blockqnn.space import AS_SET, Block, Shape, ShapedBlock, design_of

if TYPE_CHECKING:  # importing it imports torch, which reading a search does without
    from blockqnn.data import Dataset


@dataclass(frozen=True, kw_only=True)
class Task:
    """The data set on which a search scores its candidates."""

    data: str
    num_classes: int
    in_channels: int
    image_size: int
    train_images: int
    held_out_images: int
    fingerprint: str
    constant_guess: float | None = None
    """Accuracy in percent of always naming the most frequent class; None in old journals."""
    smallest_class: float | None = None
    """Percent of the training images that the rarest class has; None in old journals."""

    @classmethod
    def of(cls, data: Dataset, metric: str = "accuracy") -> Task:
        """The task that a data set sets to networks that are judged by `metric`."""
        return cls(
            data=data.name,
            num_classes=len(data.classes),
            in_channels=data.in_channels,
            image_size=data.image_size,
            train_images=len(data.train),
            held_out_images=len(data.held_out),
            fingerprint=data.fingerprint,
            constant_guess=data.constant_guess(metric),
            smallest_class=100.0 * int(data.train.labels.bincount().min()) / len(data.train),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @property
    def chance(self) -> float:
        """Accuracy in percent that takes no learning: that of the best constant guess."""
        return 100.0 / self.num_classes if self.constant_guess is None else self.constant_guess


@dataclass(frozen=True, slots=True)
class Candidate:
    """A block with its number in the search, from 0, and the iteration that proposed it.

    `shape` is what its network has of its own beside the settings'. On a further `rung` it goes on
    with the training of the candidate with the number `of`.
    """

    number: int
    iteration: int
    epsilon: float
    block: Block
    key: str
    shape: Shape = AS_SET
    rung: int = 0
    of: int | None = None

    @property
    def design(self) -> Block | ShapedBlock:
        """What was proposed: the block, in a shape where that was chosen too."""
        return design_of(self.block, self.shape)

    @property
    def work(self) -> str:
        """Names what is trained: the network, and the rung if it is a further one."""
        return f"{self.key}@{self.rung}" if self.rung else self.key


@dataclass(frozen=True, slots=True)
class Result:
    """A candidate with its outcome and reward, in percent.

    `same_as` is the number of the candidate whose training it shares, because their blocks compute
    the same graph; `time` is when it was recorded, in seconds since 1970.
    """

    candidate: Candidate
    outcome: Outcome
    reward: float
    cost: Cost
    same_as: int | None
    time: float


@dataclass(frozen=True, slots=True)
class Standing:
    """What all results had come to when an iteration ended; accuracy and reward in percent."""

    best_reward: float
    """Best reward of all candidates but the stopped, whose accuracies are predictions."""
    best_accuracy: float | None
    distinct_blocks: int
