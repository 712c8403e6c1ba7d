"""Where a training's batches come from: images in memory here, streamed ones in
`blockqnn.data.streamed.stream`.

The same (seed, epoch, step) always gives the same images in the same order with the same
augmentation, so that a training can go on in the middle of an epoch without any generator's state.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Share:
    """Which share of every batch a process of a data-parallel training takes."""

    rank: int = 0
    world: int = 1

    def of(self, count: int) -> slice:
        """This process's run of so many images; the first processes take one more if need be."""
        each, rest = divmod(count, self.world)
        start = self.rank * each + min(self.rank, rest)
        return slice(start, start + each + (self.rank < rest))

    @property
    def smallest(self) -> int:
        """Images below which a batch is left out: batch norm has no variance of one."""
        return 2 * self.world


ALONE = Share()
"""All of every batch: one process trains by itself."""


@dataclass(frozen=True)
class Batch:
    """One process's share of a batch, on its device.

    Images `(n, C, H, W)` are float32, normalised, augmented, channels last; labels `(n,)` int64;
    `size` counts the images of the whole batch, over all processes.
    """

    images: Tensor
    labels: Tensor
    size: int


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
        """This process's share of the held-out images, normalised, and their labels."""

    def close(self) -> None:
        """Let go of processes that read images."""
