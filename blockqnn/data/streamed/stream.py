"""Images of any number, read from disk while a network trains: ILSVRC, or whatever is laid out so.

What lies in memory is the list of files. An epoch's order, and how each image is augmented, depend
on (seed, epoch, place in the epoch) alone: neither on the number of loader processes nor on that of
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

from blockqnn.data.feed import ALONE, EVALUATION_BATCH, Share
from blockqnn.data.split import stratified
from blockqnn.data.streamed.image_tree import ImageTree, check_both, read_folder, read_tar
from blockqnn.data.streamed.loading import (
    Item,
    Loaded,
    Loader,
    ToDevice,
    TreeBatches,
    centred,
    data_loader,
)
from blockqnn.data.streamed.shards import (
    Shards,
    ShardTestBatches,
    class_names,
    read_shards,
)
from blockqnn.errors import SettingsError, UserError
from blockqnn.seeds import seed_for
from blockqnn.settings import DataSettings

Numbers = npt.NDArray[np.int64]

CROP = 0.875
"""Share of the shorter side that the centre crop of evaluation shows."""


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
        part: Share = ALONE,
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
        self, centre: Any, device: torch.device, batch: int, part: Share
    ) -> Iterator[Loaded]:
        loaders = self.settings.loaders
        if isinstance(self.test, ImageTree):
            mine = np.arange(len(self.test))[part.of(len(self.test))]
            loaders = min(loaders, -(-len(mine) // batch))  # each takes seconds to start
            loader = Loader(TreeBatches(self.test, centre), loaders, device)
            yield from loader.load(in_batches(mine, batch))
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


def in_batches(numbers: Numbers, batch: int) -> Iterator[list[Item]]:
    for start in range(0, len(numbers), batch):
        yield [(int(number), None) for number in numbers[start : start + batch]]
