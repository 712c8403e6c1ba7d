"""The batches of a training whose images are read from disk while the network trains."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blockqnn.data.feed import ALONE, CROP, Batch, Share
from blockqnn.data.streamed.image_tree import ImageTree
from blockqnn.data.streamed.loading import (
    Item,
    Loaded,
    Loader,
    ToDevice,
    TreeBatches,
    augmented,
    centred,
    data_loader,
)
from blockqnn.data.streamed.shards import ShardBatches, Shards
from blockqnn.data.streamed.stream import ImageStream, Numbers, in_batches
from blockqnn.seeds import seed_for
from blockqnn.settings import Recipe


@dataclass
class StreamFeed:
    """A `Feed` of images that are read from disk while the network trains.

    Raises `SettingsError` for a recipe that shards do not allow.
    """

    stream: ImageStream
    recipe: Recipe
    seed: int
    device: torch.device
    part: Share = ALONE
    """This process's share of every batch."""
    everything: bool = False
    """Train on the images that are held out too, and hold out none."""

    def __post_init__(self) -> None:
        from timm.data.random_erasing import RandomErasing

        train = self.stream.train
        self._augmented = augmented(self.stream.image_size, self.recipe)
        self._erase = RandomErasing(self.recipe.random_erasing, device=self.device)
        self._to_device = ToDevice(self.device)
        self._loader: Loader | None = None
        if isinstance(train, Shards):
            train.check_training(self.recipe, self.part, self.everything)
        self._numbers = np.arange(len(train)) if self.everything else self.stream.training

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return self.stream.classes

    @property
    def train_images(self) -> int:
        """Number of images to train on. Repeated augmentation shows a part of them in an epoch."""
        return self.stream.counts(self.everything)[0]

    @property
    def held_out_images(self) -> int:
        """Number of images held out, over all processes."""
        return self.stream.counts(self.everything)[1]

    def steps(self) -> int:
        """Optimiser steps in an epoch."""
        return len(self._sizes())

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from step `first` on. Ends any other pass over the images."""
        sizes = self._sizes()
        if isinstance(self.stream.train, Shards):
            loaded = self._shards_loaded(self.stream.train, epoch, first, len(sizes))
        else:
            loaded = self._load(self._items(epoch, first, sizes))
        for step, (images, labels) in enumerate(self._to_device(loaded), first):
            if self.recipe.random_erasing:
                self._erase_some(images, epoch, step, sizes[step])
            yield Batch(images, labels, sizes[step])

    def held_out(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised centre crops of this process's share of the held-out images, with labels.

        Ends any other pass over the images.
        """
        mine = self.stream.held_out[self.part.of(self.held_out_images)]
        each = -(-self.recipe.batch // (self.part.world * self.recipe.accumulate))
        return self._to_device(self._load(in_batches(mine, each)))

    def close(self) -> None:
        """End the loader processes and any pass over the images. A later pass starts new ones."""
        if self._loader is not None:
            self._loader.close()

    def _sizes(self) -> list[int]:
        """Numbers of images in the steps of an epoch, over all processes."""
        images, batch = self.train_images, self.recipe.batch
        if self.recipe.augment_repeats > 1:
            images = len(self._sampler())
        whole, rest = divmod(images, batch)
        if isinstance(self.stream.train, Shards) or rest < self.part.smallest:
            return [batch] * whole
        return [batch] * whole + [rest]

    def _order(self, epoch: int) -> Numbers:
        """The numbers of an epoch's images in their order, over all processes."""
        seed = seed_for(self.seed, "order", epoch)
        if self.recipe.augment_repeats > 1:
            sampler = self._sampler()
            sampler.set_epoch(seed)
            order = np.fromiter(sampler, np.int64)
        else:
            shuffle = torch.Generator().manual_seed(seed)
            order = torch.randperm(len(self._numbers), generator=shuffle).numpy()
        return self._numbers[order]

    def _sampler(self) -> Any:
        """timm's sampler of repeated augmentation, for all processes together."""
        from timm.data.distributed_sampler import RepeatAugSampler

        repeats = self.recipe.augment_repeats
        return RepeatAugSampler(
            range(len(self._numbers)), num_replicas=1, rank=0, num_repeats=repeats
        )

    def _places(self, step: int, size: int) -> range:
        """The places in the epoch of this process's share of a step of `size` images."""
        start = step * self.recipe.batch
        if self.recipe.augment_repeats > 1:  # copies of an image go to different processes
            return range(start + self.part.rank, start + size, self.part.world)
        share = self.part.of(size)
        return range(start + share.start, start + share.stop)

    def _items(self, epoch: int, first: int, sizes: list[int]) -> Iterator[list[Item]]:
        order = self._order(epoch)
        for step in range(first, len(sizes)):
            yield [
                (int(order[place]), seed_for(self.seed, "augment", f"{epoch}/{place}"))
                for place in self._places(step, sizes[step])
            ]

    def _load(self, batches: Iterable[list[Item]]) -> Iterator[Loaded]:
        if self._loader is None:
            train = self.stream.train
            assert isinstance(train, ImageTree)
            centre = centred(self.stream.image_size, CROP)
            loading = TreeBatches(train, centre, self._augmented)
            self._loader = Loader(loading, self.stream.settings.loaders, self.device)
        return self._loader.load(batches)

    def _shards_loaded(
        self, shards: Shards, epoch: int, first: int, steps: int
    ) -> Iterator[Loaded]:
        batches = ShardBatches(
            shards=shards,
            augmented=self._augmented,
            batch=self.recipe.batch // self.part.world,
            part=self.part,
            seed=self.seed,
            epoch=epoch,
            first=first,
        )
        loaders = min(self.stream.settings.loaders, len(shards.names) // self.part.world)
        seed = seed_for(self.seed, "order", epoch)
        return islice(data_loader(batches, loaders, self.device, seed), steps)

    def _erase_some(self, images: Tensor, epoch: int, step: int, size: int) -> None:
        before = random.getstate()
        for number, place in enumerate(self._places(step, size)):
            random.seed(seed_for(self.seed, "erase", f"{epoch}/{place}"))
            self._erase(images[number])
        random.setstate(before)
