"""Images of any number, read from disk while a network trains: ILSVRC, or whatever is laid out so.

What lies in memory is the list of files. An epoch's order, and how each image is augmented, depend
on (seed, epoch, place in the epoch) alone: neither on the number of loader processes nor on that of
training processes. WebDataset shards are the exception (`blockqnn.data.streamed.shards`).
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from blockqnn.data.streamed.image_tree import ImageTree, check_both, read_folder, read_tar
from blockqnn.settings.search import DataSettings
from blockqnn.data.dataset import stratified
from blockqnn.errors import SettingsError, UserError
from blockqnn.data.feed import EVALUATION_BATCH, Batch, Part
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
from blockqnn.settings.recipe import Recipe
from blockqnn.seeds import seed_for
from blockqnn.data.streamed.shards import ShardBatches, Shards, ShardTestBatches, class_names, read_shards

Numbers = npt.NDArray[np.int64]

CROP = 0.875
"""Share of the shorter side that the centre crop of evaluation shows."""

ALONE = Part()

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageStream:
    """Images on disk: listed, checked, and split; the test images are those of val.

    `training` and `held_out` are numbers of images of `train`. `fingerprint` names the classes, the
    names and sizes of all files, and the split.
    """

    settings: DataSettings
    classes: tuple[str, ...]
    train: ImageTree | Shards
    test: ImageTree | Shards
    training: Numbers
    held_out: Numbers
    fingerprint: str

    in_channels = 3

    @property
    def image_size(self) -> int:
        """Side in pixels of images to train on and to test."""
        return self.settings.image_size or 0

    @property
    def name(self) -> str:
        """Name of the data set in the settings."""
        return self.settings.name

    def counts(self, everything: bool) -> tuple[int, int]:
        """Images trained on and held out, over all processes."""
        held_out = 0 if everything else len(self.held_out)
        return len(self.train) - held_out, held_out

    @property
    def test_images(self) -> int:
        """Images of the test set."""
        return len(self.test)

    @property
    def mean(self) -> tuple[float, ...]:
        """What is subtracted from each channel, ImageNet's mean, as a share of 255."""
        from timm.data.constants import IMAGENET_DEFAULT_MEAN

        return tuple(IMAGENET_DEFAULT_MEAN)

    @property
    def std(self) -> tuple[float, ...]:
        """What each channel is then divided by, ImageNet's deviation, as a share of 255."""
        from timm.data.constants import IMAGENET_DEFAULT_STD

        return tuple(IMAGENET_DEFAULT_STD)

    def test_batches(
        self,
        device: torch.device,
        image_size: int | None = None,
        batch: int = EVALUATION_BATCH,
        part: Part = ALONE,
        crop: float = CROP,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """A process's share of the test images, normalised, and their labels `(n,)`, on the device.

        Images `(n, 3, image_size, image_size)` are float32, channels last, one centre crop of each,
        whose shorter side was resized to image_size / crop. Those of folders and tar files come in
        the order of their names.
        """
        centre = centred(image_size or self.image_size, crop)
        return ToDevice(device)(self._test_loaded(centre, device, batch, part))

    def _test_loaded(
        self, centre: Any, device: torch.device, batch: int, part: Part
    ) -> Iterator[Loaded]:
        loaders = self.settings.loaders
        if isinstance(self.test, ImageTree):
            mine = np.arange(len(self.test))[part.of(len(self.test))]
            loaders = min(loaders, -(-len(mine) // batch))  # each takes seconds to start
            loader = Loader(TreeBatches(self.test, centre), loaders, device)
            yield from loader.load(_in_batches(mine, batch))
            return
        # without random access, every process reads all and leaves the others' batches
        shards = ShardTestBatches(self.test, centre, batch)
        read = 0
        loaded = data_loader(shards, min(loaders, len(self.test.names)), device)
        for number, each in enumerate(loaded):
            read += len(each[1]) if isinstance(each, tuple) else 0
            if number % part.world == part.rank:
                yield each
        if read != len(self.test):
            raise UserError(
                f"{self.test.root} has {len(self.test)} test images, but {read} could be read: "
                "mend its shards"
            )


def open_stream(settings: DataSettings, seed: int) -> ImageStream:
    """The images below `data.root`, of which `data.holdout` are held out, stratified, fixed by the
    seed.

    Lists every file and reads one image of each class of train and val: seconds to a minute for a
    million. Raises `SettingsError` for what a training could not use.
    """
    root = Path(settings.root or "").expanduser()
    if not root.is_dir():
        raise SettingsError(
            f"data.root is {str(root)!r}: there is no such directory; give the one that holds "
            "train and val"
        )
    if settings.reader == "wds":
        return _open_shards(settings, root)
    if settings.reader == "tar":
        train, test = read_tar(root, "train"), read_tar(root, "val")
    else:
        train, test = read_folder(root / "train"), read_folder(root / "val")
    check_both(train, test)
    held = max(len(train.classes), round(settings.holdout * len(train)))
    training, held_out = stratified(settings, train.labels, held, seed_for(seed, "split"))
    counted = f"{len(held_out)} of them held out, "
    return _stream(settings, train.classes, train, test, training, held_out, counted)


def _open_shards(settings: DataSettings, root: Path) -> ImageStream:
    train, test = read_shards(root, "train"), read_shards(root, "val", "validation")
    train.check()
    test.check()
    classes, none = class_names(root, test), np.empty(0, np.int64)
    return _stream(settings, classes, train, test, none, none, "")


def _stream(
    settings: DataSettings,
    classes: tuple[str, ...],
    train: ImageTree | Shards,
    test: ImageTree | Shards,
    training: Numbers,
    held_out: Numbers,
    counted: str,
) -> ImageStream:
    digest = hashlib.sha256("\n".join(classes).encode())
    for source in (train, test):
        for name, size in source.files():
            digest.update(f"{name}/{size}\n".encode(errors="surrogateescape"))
    digest.update(held_out.tobytes())
    _logger.info(
        "%s: %d training images, %s%d test images, %d classes",
        settings.root,
        len(train),
        counted,
        len(test),
        len(classes),
    )
    fingerprint = digest.hexdigest()[:32]
    return ImageStream(settings, classes, train, test, training, held_out, fingerprint)


class StreamFeed:
    """A `Feed` of images that are read from disk while the network trains."""

    def __init__(
        self,
        stream: ImageStream,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        part: Part = ALONE,
        everything: bool = False,
    ) -> None:
        """Trains on all images of train with `everything`, else on those not held out.

        Raises `SettingsError` for what shards cannot do.
        """
        from timm.data.random_erasing import RandomErasing

        self._stream = stream
        self._recipe = recipe
        self._seed = seed
        self._device = device
        self._part = part
        self._everything = everything
        self._augmented = augmented(stream.image_size, recipe)
        self._erase = RandomErasing(recipe.random_erasing, device=device)
        self._to_device = ToDevice(device)
        self._loader: Loader | None = None
        if isinstance(stream.train, Shards):
            stream.train.check_training(recipe, part, everything)
        self._numbers = np.arange(len(stream.train)) if everything else stream.training

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return self._stream.classes

    @property
    def train_images(self) -> int:
        """Images trained on; repeated augmentation shows a part of them in an epoch."""
        return self._stream.counts(self._everything)[0]

    @property
    def held_out_images(self) -> int:
        """Images held out, over all processes; 0 when all are trained on."""
        return self._stream.counts(self._everything)[1]

    def steps(self) -> int:
        """Optimiser steps an epoch."""
        return len(self._sizes())

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from step `first` on; ends any other pass over the images."""
        sizes = self._sizes()
        if isinstance(self._stream.train, Shards):
            loaded = self._shards_loaded(self._stream.train, epoch, first, len(sizes))
        else:
            loaded = self._load(self._items(epoch, first, sizes))
        for step, (images, labels) in enumerate(self._to_device(loaded), first):
            if self._recipe.random_erasing:
                self._erase_some(images, epoch, step, sizes[step])
            yield Batch(images, labels, sizes[step])

    def held_out(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the held-out images, normalised centre crops, and their labels.

        Ends any other pass over the images.
        """
        mine = self._stream.held_out[self._part.of(self.held_out_images)]
        each = -(-self._recipe.batch // (self._part.world * self._recipe.accumulate))
        return self._to_device(self._load(_in_batches(mine, each)))

    def close(self) -> None:
        """End the loader processes, and any pass over the images; a later one starts new ones."""
        if self._loader is not None:
            self._loader.close()

    def _sizes(self) -> list[int]:
        """Images of each step of an epoch, over all processes."""
        images, batch = self.train_images, self._recipe.batch
        if self._recipe.augment_repeats > 1:
            images = len(self._sampler())
        whole, rest = divmod(images, batch)
        if isinstance(self._stream.train, Shards) or rest < self._part.smallest:
            return [batch] * whole
        return [batch] * whole + [rest]

    def _order(self, epoch: int) -> Numbers:
        """Numbers of an epoch's images, over all processes."""
        seed = seed_for(self._seed, "order", epoch)
        if self._recipe.augment_repeats > 1:
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

        repeats = self._recipe.augment_repeats
        return RepeatAugSampler(
            range(len(self._numbers)), num_replicas=1, rank=0, num_repeats=repeats
        )

    def _places(self, step: int, size: int) -> range:
        """Where in the epoch this process's share of a step of so many images lies."""
        start = step * self._recipe.batch
        if self._recipe.augment_repeats > 1:  # copies of an image go to different processes
            return range(start + self._part.rank, start + size, self._part.world)
        share = self._part.of(size)
        return range(start + share.start, start + share.stop)

    def _items(self, epoch: int, first: int, sizes: list[int]) -> Iterator[list[Item]]:
        order = self._order(epoch)
        for step in range(first, len(sizes)):
            yield [
                (int(order[place]), seed_for(self._seed, "augment", f"{epoch}/{place}"))
                for place in self._places(step, sizes[step])
            ]

    def _load(self, batches: Iterable[list[Item]]) -> Iterator[Loaded]:
        if self._loader is None:
            train = self._stream.train
            assert isinstance(train, ImageTree)
            centre = centred(self._stream.image_size, CROP)
            loading = TreeBatches(train, centre, self._augmented)
            self._loader = Loader(loading, self._stream.settings.loaders, self._device)
        return self._loader.load(batches)

    def _shards_loaded(
        self, shards: Shards, epoch: int, first: int, steps: int
    ) -> Iterator[Loaded]:
        batches = ShardBatches(
            shards,
            self._augmented,
            batch=self._recipe.batch // self._part.world,
            part=self._part,
            seed=self._seed,
            epoch=epoch,
            first=first,
        )
        loaders = min(self._stream.settings.loaders, len(shards.names) // self._part.world)
        seed = seed_for(self._seed, "order", epoch)
        return islice(data_loader(batches, loaders, self._device, seed), steps)

    def _erase_some(self, images: Tensor, epoch: int, step: int, size: int) -> None:
        before = random.getstate()
        for number, place in enumerate(self._places(step, size)):
            random.seed(seed_for(self._seed, "erase", f"{epoch}/{place}"))
            self._erase(images[number])
        random.setstate(before)


def _in_batches(numbers: Numbers, batch: int) -> Iterator[list[Item]]:
    for start in range(0, len(numbers), batch):
        yield [(int(number), None) for number in numbers[start : start + batch]]
