"""What a training asks of its images, wherever they lie: batches, in shares for several processes.

The same (seed, epoch, step) always gives the same images in the same order with the same
augmentation, so that a training can go on in the middle of an epoch without any generator's state.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

CROP = 0.875
"""Share of the shorter side of an image on disk that the centre crop of evaluation shows."""

EVALUATION_BATCH = 500
"""Images in a batch of an evaluation."""


@dataclass(frozen=True)
class Share:
    """The share of every batch that a process of a data-parallel training takes."""

    rank: int = 0
    """Number of the process, counted from 0."""
    world: int = 1
    """Number of processes."""

    def of(self, count: int) -> slice:
        """This process's run of `count` images; the first processes take one more if need be."""
        each, rest = divmod(count, self.world)
        start = self.rank * each + min(self.rank, rest)
        return slice(start, start + each + (self.rank < rest))

    @property
    def smallest(self) -> int:
        """Images below which a batch is left out: batch norm needs two on every process."""
        return 2 * self.world


ALONE = Share()
"""The share of a process that trains by itself: all of every batch."""


@dataclass(frozen=True)
class Batch:
    """One process's share of a batch, on its device."""

    images: Tensor
    """Images `(n, C, H, W)` in float32, normalised and augmented, channels last."""
    labels: Tensor
    """Labels `(n,)` in int64."""
    size: int
    """Images of the whole batch, over all processes."""


class Feed(Protocol):
    """Training batches and held-out images of one process."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""

    @property
    def train_images(self) -> int:
        """Images of an epoch, over all processes."""

    @property
    def held_out_images(self) -> int:
        """Images held out, over all processes; 0 when all are trained on."""

    def steps(self) -> int:
        """Optimiser steps an epoch."""

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from step `first` on."""

    def held_out(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the held-out images, normalised, with their labels."""

    def close(self) -> None:
        """End the processes that read images."""
