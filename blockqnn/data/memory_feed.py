"""Batches of images that lie on the device, augmented there."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from blockqnn.data.augment import augment
from blockqnn.data.dataset import Dataset, ImageSet
from blockqnn.data.feed import ALONE, EVALUATION_BATCH, Batch, Share
from blockqnn.seeds import seed_for
from blockqnn.settings import Recipe


@dataclass
class MemoryFeed:
    """A `Feed` of images that lie on the device as one tensor."""

    data: Dataset
    """The images, on `device` already."""
    recipe: Recipe
    seed: int
    device: torch.device
    part: Share = ALONE
    """This process's share of every batch."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return self.data.classes

    @property
    def train_images(self) -> int:
        """Images of an epoch, over all processes."""
        return len(self.data.train)

    @property
    def held_out_images(self) -> int:
        """Images held out, over all processes."""
        return len(self.data.held_out)

    def steps(self) -> int:
        """Optimiser steps an epoch."""
        whole, rest = divmod(len(self.data.train), self.recipe.batch)
        return whole + (rest >= self.part.smallest)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from step `first` on."""
        data, recipe = self.data, self.recipe
        shuffle = torch.Generator().manual_seed(seed_for(self.seed, "order", epoch))
        order = torch.randperm(len(data.train), generator=shuffle).to(self.device)
        for step in range(first, self.steps()):
            whole = order[step * recipe.batch : (step + 1) * recipe.batch]
            part = self.part.of(len(whole))
            draws = torch.Generator(self.device)
            draws.manual_seed(seed_for(self.seed, "augment", f"{epoch}/{step}"))
            images = data.normalised(data.train.images.index_select(0, whole[part]))
            yield Batch(
                augment(images, recipe, draws, of=len(whole), part=part),
                data.train.labels.index_select(0, whole[part]),
                len(whole),
            )

    def held_out(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the held-out images, normalised, with their labels."""
        return normalised_batches(self.data, self.data.held_out, self.part)

    def close(self) -> None:
        """Do nothing: no process reads images."""


def normalised_batches(
    data: Dataset, images: ImageSet, part: Share = ALONE
) -> Iterator[tuple[Tensor, Tensor]]:
    """One process's share of an image set, normalised as `data` says, with its labels."""
    mine = part.of(len(images))
    for start in range(mine.start, mine.stop, EVALUATION_BATCH):
        batch = slice(start, min(start + EVALUATION_BATCH, mine.stop))
        yield data.normalised(images.images[batch]), images.labels[batch]
