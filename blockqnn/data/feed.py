"""Where a training's batches come from: images in memory here, streamed ones in
`blockqnn.data.streamed.stream`.

The same (seed, epoch, step) always gives the same images in the same order with the same
augmentation, so that a training can go on in the middle of an epoch without any generator's state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from blockqnn.data.dataset import Dataset, ImageSet, augment
from blockqnn.settings.recipe import Recipe
from blockqnn.seeds import seed_for

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Part:
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


class MemoryFeed:
    """A `Feed` of images that lie on the device as one tensor."""

    def __init__(
        self, data: Dataset, recipe: Recipe, seed: int, device: torch.device, part: Part = Part()
    ) -> None:
        """`data` is on `device` already."""
        self._data = data
        self._recipe = recipe
        self._seed = seed
        self._device = device
        self._part = part

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return self._data.classes

    @property
    def train_images(self) -> int:
        """Images of an epoch, over all processes."""
        return len(self._data.train)

    @property
    def held_out_images(self) -> int:
        """Images held out, over all processes."""
        return len(self._data.held_out)

    def steps(self) -> int:
        """Optimiser steps an epoch."""
        whole, rest = divmod(len(self._data.train), self._recipe.batch)
        return whole + (rest >= self._part.smallest)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from step `first` on."""
        data, recipe = self._data, self._recipe
        shuffle = torch.Generator().manual_seed(seed_for(self._seed, "order", epoch))
        order = torch.randperm(len(data.train), generator=shuffle).to(self._device)
        for step in range(first, self.steps()):
            whole = order[step * recipe.batch : (step + 1) * recipe.batch]
            part = self._part.of(len(whole))
            draws = torch.Generator(self._device)
            draws.manual_seed(seed_for(self._seed, "augment", f"{epoch}/{step}"))
            images = data.normalised(data.train.images.index_select(0, whole[part]))
            yield Batch(
                augment(images, recipe, draws, of=len(whole), part=part),
                data.train.labels.index_select(0, whole[part]),
                len(whole),
            )

    def held_out(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the held-out images, normalised, and their labels."""
        return normalised_batches(self._data, self._data.held_out, self._part)

    def close(self) -> None:
        """Nothing to let go of."""


def normalised_batches(
    data: Dataset, images: ImageSet, part: Part = Part()
) -> Iterator[tuple[Tensor, Tensor]]:
    """A process's share of an image set for evaluation: images as `data` normalises them, and their
    labels.
    """
    mine = part.of(len(images))
    for start in range(mine.start, mine.stop, EVALUATION_BATCH):
        batch = slice(start, min(start + EVALUATION_BATCH, mine.stop))
        yield data.normalised(images.images[batch]), images.labels[batch]
