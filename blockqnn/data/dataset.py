"""Data sets become tensors on the device: splits, augmentation, fingerprints.

A set lives on the device as one uint8 tensor. Normalisation and augmentation happen there in
batches; there is no per-image Python and no DataLoader.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from blockqnn.data.read import read
from blockqnn.data.source import Source
from blockqnn.data.split import stratified
from blockqnn.seeds import seed_for
from blockqnn.settings import DataSettings

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImageSet:
    """Images `(N, C, H, W)` uint8 and labels `(N,)` int64 on one device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> ImageSet:
        """The same set on another device."""
        return ImageSet(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """A data set, split for the search; the test set belongs to final evaluation alone.

    `mean` and `std` are per channel, in pixel values, of the images trained on. `fingerprint` names
    the bytes of all images and labels, the classes and the split.
    """

    name: str
    classes: tuple[str, ...]
    train: ImageSet
    held_out: ImageSet
    test: ImageSet
    mean: Tensor
    std: Tensor
    fingerprint: str

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return self.train.images.shape[1]

    @property
    def image_size(self) -> int:
        """Side of an image in pixels."""
        return self.train.images.shape[2]

    def to(self, device: torch.device) -> Dataset:
        """The same data on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("train", "held_out", "test")}
        return replace(self, **moved, mean=self.mean.to(device), std=self.std.to(device))

    def to_arrays(self) -> dict[str, Any]:
        """The same as plain values and arrays, to be sent elsewhere: without the test set."""
        sets = {"train": self.train, "held_out": self.held_out}
        arrays = {name: (s.images.numpy(), s.labels.numpy()) for name, s in sets.items()}
        moments = {"mean": self.mean.numpy(), "std": self.std.numpy()}
        plain = {name: getattr(self, name) for name in ("name", "classes", "fingerprint")}
        return {**plain, **moments, **arrays}

    @classmethod
    def from_arrays(cls, values: Mapping[str, Any]) -> Dataset:
        """What `to_arrays` packed, without a copy; the test set is empty."""
        train, held_out = (ImageSet(*map(_shared, values[name])) for name in ("train", "held_out"))
        return cls(
            name=values["name"],
            classes=values["classes"],
            train=train,
            held_out=held_out,
            test=ImageSet(train.images[:0], train.labels[:0]),
            mean=torch.tensor(values["mean"]),
            std=torch.tensor(values["std"]),
            fingerprint=values["fingerprint"],
        )

    def everything(self) -> Dataset:
        """The same data with nothing held out: for final training, once the selection is made."""
        train = ImageSet(
            torch.cat([self.train.images, self.held_out.images]),
            torch.cat([self.train.labels, self.held_out.labels]),
        )
        none = ImageSet(self.held_out.images[:0], self.held_out.labels[:0])
        mean, std = _normalisation(train.images.permute(0, 2, 3, 1).cpu().numpy())
        device = self.mean.device
        return replace(self, train=train, held_out=none, mean=mean.to(device), std=std.to(device))

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
    mean, std = _normalisation(pixels[train])
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
    """A tensor over memory that may belong to others; nothing here writes to its images."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def _image_set(pixels: Pixels, labels: Labels) -> ImageSet:
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    return ImageSet(images, torch.from_numpy(np.ascontiguousarray(labels)))


def _moments(pixels: Pixels) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and deviation of each channel, from histograms: exact, without a float copy."""
    channels = range(pixels.shape[3])
    counts = np.stack([np.bincount(pixels[..., c].ravel(), minlength=256) for c in channels])
    share = counts / counts.sum(axis=1, keepdims=True)
    values = np.arange(256.0)
    mean = share @ values
    return mean, np.sqrt(np.maximum(share @ values**2 - mean**2, 0.0))


def _normalisation(pixels: Pixels) -> tuple[Tensor, Tensor]:
    """What to subtract from a channel and to divide it by, as tensors that fit a batch."""
    mean, std = _moments(pixels)
    # a constant channel must not divide by zero
    return _per_channel(mean), _per_channel(np.maximum(std, 1.0))


def _per_channel(values: npt.NDArray[np.float64]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def _fingerprint(source: Source, *splits: npt.NDArray[np.int64]) -> str:
    digest = hashlib.sha256("\n".join(source.classes).encode())
    pixels, labels = (
        (source.train_pixels, source.test_pixels),
        (source.train_labels, source.test_labels),
    )
    arrays: list[npt.NDArray[Any]] = [*pixels, *labels, *splits]
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:32]
