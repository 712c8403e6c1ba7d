"""Data sets that fit into memory, split, as one uint8 tensor a set.

Normalisation and augmentation happen on the device in whole batches: no Python runs for each image.
"""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from blockqnn.data.read import read
from blockqnn.data.source import Labels, Pixels, Source
from blockqnn.data.split import stratified
from blockqnn.seeds import seed_for
from blockqnn.settings import DataSettings


@dataclass(frozen=True)
class ImageSet:
    """Images `(N, C, H, W)` uint8 and labels `(N,)` int64 on one device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Self:
        """The same set on another device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def none(self) -> Self:
        """A set without images, but of the same shape of an image."""
        return replace(self, images=self.images[:0], labels=self.labels[:0])


@dataclass(frozen=True)
class Dataset:
    """Images in memory, with some of the training images held out.

    The test set is for the evaluation of final trainings alone.
    """

    name: str
    classes: tuple[str, ...]
    """Names of the classes, by label."""
    train: ImageSet
    held_out: ImageSet
    test: ImageSet
    mean: Tensor
    """Mean of each channel over `train` in pixel values, shape `(1, C, 1, 1)`."""
    std: Tensor
    """Deviation of each channel over `train` in pixel values, shape `(1, C, 1, 1)`."""
    fingerprint: str
    """Hash of all images and labels, the classes and the split."""

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return self.train.images.shape[1]

    @property
    def image_size(self) -> int:
        """Side of an image in pixels."""
        return self.train.images.shape[2]

    def to(self, device: torch.device) -> Self:
        """The same data on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("train", "held_out", "test")}
        return replace(self, **moved, mean=self.mean.to(device), std=self.std.to(device))

    def to_arrays(self) -> dict[str, Any]:
        """Plain values and arrays that `from_arrays` takes, without the test set."""
        sets = {"train": self.train, "held_out": self.held_out}
        arrays = {name: (s.images.numpy(), s.labels.numpy()) for name, s in sets.items()}
        moments = {"mean": self.mean.numpy(), "std": self.std.numpy()}
        plain = {name: getattr(self, name) for name in ("name", "classes", "fingerprint")}
        return {**plain, **moments, **arrays}

    @classmethod
    def from_arrays(cls, values: Mapping[str, Any]) -> Self:
        """The data that `to_arrays` packed, without a copy of the images; the test set is empty."""
        sets = {name: ImageSet(*map(_shared, values[name])) for name in ("train", "held_out")}
        moments = {name: torch.tensor(values[name]) for name in ("mean", "std")}
        return cls(**{**values, **sets, **moments}, test=sets["train"].none())

    def constant_guess(self, metric: str = "accuracy") -> float:
        """Held-out accuracy, or balanced accuracy, in percent of always naming the class that most
        of the held-out images have.
        """
        counts = self.held_out.labels.bincount()
        if metric == "balanced_accuracy":  # one class is right, the others are not
            return 100.0 / int((counts > 0).sum())
        return 100.0 * int(counts.max()) / len(self.held_out)

    def cut(self, images: int | None, seed: int) -> Self:
        """The same data with so many training images, each class in proportion, or all for None.

        Fewer are among more of the same seed. The test set, what is held out and the moments stay.
        """
        if images is None or images >= len(self.train):
            return self
        labels = self.train.labels.cpu()
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        place = torch.empty(len(labels), dtype=torch.float64)
        for label in labels.unique():
            of_class = order[labels[order] == label]
            place[of_class] = torch.arange(len(of_class)).double() / len(of_class)
        kept = torch.argsort(place, stable=True)[:images].sort().values.to(self.train.labels.device)
        return replace(self, train=ImageSet(self.train.images[kept], self.train.labels[kept]))

    def everything(self) -> Self:
        """The same data with nothing held out: for final training, once the selection is made."""
        train = ImageSet(
            torch.cat([self.train.images, self.held_out.images]),
            torch.cat([self.train.labels, self.held_out.labels]),
        )
        mean, std = _moments(train.images.permute(0, 2, 3, 1).cpu().numpy())
        here = self.mean.device
        rest = self.held_out.none()
        return replace(self, train=train, held_out=rest, mean=mean.to(here), std=std.to(here))

    def normalised(self, images: Tensor) -> Tensor:
        """uint8 images `(N, C, H, W)` as float32 of mean 0 and deviation 1, channels last."""
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        return pixels.sub_(self.mean).div_(self.std)


def load(settings: DataSettings, seed: int) -> Dataset:
    """The data set that the settings name, on the CPU.

    Training images are cut to `images` if given, then `holdout` of them are held out, both
    stratified and fixed by `seed`. Raises `SettingsError` when files are missing, or a class is too
    small to split.
    """
    source = read(settings)
    pixels, labels = source.train_pixels, source.train_labels
    if settings.images is not None and settings.images < len(labels):
        keep = stratified(settings, labels, settings.images, seed_for(seed, "subset"))[1]
        pixels, labels = pixels[keep], labels[keep]
    held = max(len(source.classes), round(settings.holdout * len(labels)))
    train, held_out = stratified(settings, labels, held, seed_for(seed, "split"))
    mean, std = _moments(pixels[train])
    return Dataset(
        name=source.name or settings.name,
        classes=source.classes,
        train=_image_set(pixels[train], labels[train]),
        held_out=_image_set(pixels[held_out], labels[held_out]),
        test=_image_set(source.test_pixels, source.test_labels),
        mean=mean,
        std=std,
        fingerprint=_fingerprint(source, train, held_out),
    )


def _shared(array: npt.NDArray[Any]) -> Tensor:
    """A tensor over memory that may belong to others: nothing may write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def _image_set(pixels: Pixels, labels: Labels) -> ImageSet:
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    return ImageSet(images, torch.from_numpy(np.ascontiguousarray(labels)))


def _moments(pixels: Pixels) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel `(1, C, 1, 1)`, from histograms: exact, without floats."""
    channels = range(pixels.shape[3])
    counts = np.stack([np.bincount(pixels[..., c].ravel(), minlength=256) for c in channels])
    share = counts / counts.sum(axis=1, keepdims=True)
    values = np.arange(256.0)
    mean = share @ values
    std = np.sqrt(np.maximum(share @ values**2 - mean**2, 0.0))
    std = np.maximum(std, 1.0)  # a constant channel must not divide by zero
    first, second = (torch.tensor(m, dtype=torch.float32).view(1, -1, 1, 1) for m in (mean, std))
    return first, second


def _fingerprint(source: Source, *splits: npt.NDArray[np.int64]) -> str:
    digest = hashlib.sha256("\n".join(source.classes).encode())
    pixels = (source.train_pixels, source.test_pixels)
    arrays: list[npt.NDArray[Any]] = [*pixels, source.train_labels, source.test_labels, *splits]
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:32]
