"""A data set of any number of images on disk, such as ILSVRC: listed, checked and split.

Only the list of files lies in memory. The order of an epoch, and how each image is augmented,
depend on (seed, epoch, place in the epoch) alone, not on the numbers of loader processes and
training processes. WebDataset shards are the exception (`blockqnn.data.streamed.shards`).
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from blockqnn.data.feed import ALONE, CROP, EVALUATION_BATCH, Share
from blockqnn.data.files.layout import find_parts
from blockqnn.data.split import stratified
from blockqnn.data.streamed.image_tree import ImageTree, check_both, read_folder, read_tar
from blockqnn.data.streamed.loading import (
    MEAN,
    STD,
    Item,
    Loaded,
    Loader,
    ToDevice,
    TreeBatches,
    centred,
    data_loader,
)
from blockqnn.data.streamed.shards import Shards, ShardTestBatches, class_names, read_shards
from blockqnn.errors import SettingsError, UserError
from blockqnn.seeds import seed_for
from blockqnn.settings import DataSettings

Numbers = npt.NDArray[np.int64]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageStream:
    """A data set on disk: its images are listed, checked and split."""

    settings: DataSettings
    classes: tuple[str, ...]
    """Names of the classes, by label."""
    train: ImageTree | Shards
    """All images of the split train, the held-out ones included."""
    test: ImageTree | Shards
    """The images of the split val, which are the test set."""
    training: Numbers
    """Numbers of the images of `train` that are not held out."""
    held_out: Numbers
    """Numbers of the images of `train` that are held out."""
    fingerprint: str
    """Hash of the classes, the names and sizes of all files, and the split."""

    in_channels = 3
    mean = MEAN
    """The mean of each channel, for pixels from 0 to 1, which is subtracted."""
    std = STD
    """The deviation of each channel, for pixels from 0 to 1, which then divides."""

    @property
    def image_size(self) -> int:
        """Pixels a side of the images that a network trains on."""
        return self.settings.image_size or 0

    @property
    def name(self) -> str:
        """The name that the data set has in the settings."""
        return self.settings.name

    def counts(self, everything: bool) -> tuple[int, int]:
        """Numbers of images trained on and held out; with `everything` none is held out."""
        held_out = 0 if everything else len(self.held_out)
        return len(self.train) - held_out, held_out

    def test_batches(
        self,
        device: torch.device,
        image_size: int | None = None,
        batch: int = EVALUATION_BATCH,
        part: Share = ALONE,
        crop: float = CROP,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One process's share of the test images, with labels `(n,)`, on the device.

        Images `(n, 3, image_size, image_size)` are normalised in float32, channels last: the centre
        of each, after its shorter side was resized to image_size / crop pixels. Those of folders
        and tar files come in the order of their names.
        """
        centre = centred(image_size or self.image_size, crop)
        return ToDevice(device)(self._test_loaded(centre, device, batch, part))

    def _test_loaded(
        self, centre: Any, device: torch.device, batch: int, part: Share
    ) -> Iterator[Loaded]:
        loaders = self.settings.loaders
        if isinstance(self.test, ImageTree):
            mine = np.arange(len(self.test))[part.of(len(self.test))]
            loaders = min(loaders, -(-len(mine) // batch))  # each loader takes seconds to start
            loader = Loader(TreeBatches(self.test, centre), loaders, device)
            yield from loader.load(in_batches(mine, batch))
            return
        # without random access every process reads all batches and drops those of the others
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
    """The data set below `data.root`. `data.holdout` of its training images are held out.

    Which ones depends on the seed alone; every class has its share of them. Lists all files and
    reads one image of every class, which takes seconds, or a minute for a million images. Raises
    `SettingsError` for what a training could not use.
    """
    root = Path(settings.root or "").expanduser()
    if not root.is_dir():
        raise SettingsError(
            f"data.root is {str(root)!r}: there is no such directory; give the one that holds "
            "train and val"
        )
    train: ImageTree | Shards
    test: ImageTree | Shards
    if settings.reader == "wds":
        train, test = read_shards(root, "train"), read_shards(root, "val", "validation")
        train.check()
        test.check()
        classes = class_names(root, test)
        training = held_out = np.empty(0, np.int64)
    else:
        if settings.reader == "tar":
            train, test = read_tar(root, "train"), read_tar(root, "val")
        else:
            parts = find_parts(root)
            if parts.test is None:
                raise SettingsError(
                    f"data.root is {str(root)!r}: it has neither train nor val; give the directory "
                    "that holds both, each with a folder of images a class"
                )
            train, test = read_folder(parts.train), read_folder(parts.test)
        check_both(train, test)
        classes = train.classes
        held = max(len(classes), round(settings.holdout * len(train)))
        training, held_out = stratified(settings, train.labels, held, seed_for(seed, "split"))
    digest = hashlib.sha256("\n".join(classes).encode())
    for source in (train, test):
        for name, size in source.files():
            digest.update(f"{name}/{size}\n".encode(errors="surrogateescape"))
    digest.update(held_out.tobytes())
    _logger.info(
        "%s: %d training images, %d of them held out, %d test images, %d classes",
        settings.root,
        len(train),
        len(held_out),
        len(test),
        len(classes),
    )
    fingerprint = digest.hexdigest()[:32]
    return ImageStream(settings, classes, train, test, training, held_out, fingerprint)


def in_batches(numbers: Numbers, batch: int) -> Iterator[list[Item]]:
    """The images of these numbers as batches of items whose centres are cut out."""
    for start in range(0, len(numbers), batch):
        yield [(int(number), None) for number in numbers[start : start + batch]]
