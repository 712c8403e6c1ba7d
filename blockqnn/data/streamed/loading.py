"""Loader processes, which decode and augment images, and the device, which normalises them.

The work is timm's. What is added: random numbers depend on an image's place in the training alone,
whichever process draws them, and errors arrive as one sentence.
"""

import multiprocessing
import os
import random
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from blockqnn.data.streamed.image_tree import ImageTree
from blockqnn.errors import SettingsError, UserError
from blockqnn.settings import Recipe

Item = tuple[int, int | None]
"""The number of an image and the seed of its augmentation, or None to cut out its centre."""

Loaded = tuple[Tensor, Tensor] | str | None
"""Images `(n, 3, H, W)` in uint8 and labels, or the sentence of an error, or None for a batch that
was skipped."""

IMPORTED = (
    "blockqnn.data.streamed.shards",
    "timm.data.loader",
    "timm.data.transforms_factory",
    "timm.data.readers.reader_image_in_tar",
)
"""Modules that are imported, in seconds, before loader processes are forked from a server."""

MEAN = (0.485, 0.456, 0.406)
"""ImageNet's mean of each channel, for pixels from 0 to 1."""
STD = (0.229, 0.224, 0.225)
"""ImageNet's standard deviation of each channel, for pixels from 0 to 1."""

SAVING_SECONDS = 60
"""Seconds that a loader works on after SIGTERM, in which the training saves its state."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators that timm's transforms draw from, and restore them afterwards."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)  # the CPU's alone: a GPU's is not ours
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


def centred(image_size: int, crop: float) -> Any:
    """timm's resizing and centre crop of a PIL image to a uint8 array `(3, H, W)`."""
    from timm.data.transforms_factory import create_transform

    return create_transform(image_size, crop_pct=crop, use_prefetcher=True)


def augmented(image_size: int, recipe: Recipe) -> Any:
    """timm's random resized crop, mirroring and the recipe's policy, to a uint8 array `(3, H, W)`.

    Raises `SettingsError` for a policy that timm does not know.
    """
    from timm.data.transforms_factory import create_transform

    try:
        return create_transform(
            image_size,
            is_training=True,
            hflip=0.5 if recipe.flip else 0.0,
            color_jitter=None,  # type: ignore[arg-type]
            auto_augment=recipe.auto_augment,
            use_prefetcher=True,
        )
    except (AssertionError, ValueError, KeyError, NotImplementedError) as error:
        raise SettingsError(
            f"recipe.auto_augment is {recipe.auto_augment!r}: timm knows no such policy "
            f"({error}); give one like rand-m7-mstd0.5-inc1, or null"
        ) from None


@dataclass(frozen=True)
class TreeBatches(Dataset[Loaded]):
    """Batches of an `ImageTree`, each indexed by its items."""

    tree: ImageTree
    centre: Any
    """Makes a uint8 array of a PIL image, for items without a seed."""
    augmented: Any = None
    """Makes a uint8 array of a PIL image, for items with a seed."""

    def __getitem__(self, items: Sequence[Item]) -> Loaded:
        from timm.data.loader import fast_collate

        try:
            batch: tuple[Tensor, Tensor] = fast_collate([self._sample(*item) for item in items])
            return batch
        except SettingsError as error:  # raised here, it would arrive with a traceback inside
            return str(error)

    def _sample(self, number: int, seed: int | None) -> tuple[Tensor, int]:
        image, label = self.tree.image(number), int(self.tree.labels[number])
        if seed is None:
            return self.centre(image), label
        with seeded(seed):
            return self.augmented(image), label


class Loader:
    """Processes that load batches of images and are kept from one pass over them to the next.

    There is one pass at a time: a new pass ends the one before.
    """

    def __init__(self, batches: Dataset[Loaded], processes: int, device: torch.device) -> None:
        self._sampler = _GivenBatches()
        self._loader = data_loader(batches, processes, device, sampler=self._sampler)
        self._passes = 0

    def load(self, batches: Iterable[Sequence[Item]]) -> Iterator[Loaded]:
        """Load batches, each given by its items, in their order."""
        self._passes += 1
        mine = self._passes
        self._sampler.batches = batches
        for batch in self._loader:
            yield batch
            if self._passes != mine:
                raise RuntimeError("a newer pass over the images has begun")

    def close(self) -> None:
        """End the processes. The next pass starts new ones."""
        self._passes += 1
        processes = self._loader._iterator
        # torch ends them when nothing refers to them, which a pass broken off by an error may do
        if isinstance(processes, _MultiProcessingDataLoaderIter):
            processes._shutdown_workers()
            self._loader._iterator = None


class _GivenBatches:
    """A sampler of torch that yields the batches of items it was given last."""

    batches: Iterable[Sequence[Item]] = ()

    def __iter__(self) -> Iterator[Sequence[Item]]:
        return iter(self.batches)


def data_loader(
    batches: Dataset[Loaded], processes: int, device: torch.device, seed: int = 0, **more: Any
) -> DataLoader[Loaded]:
    """torch's loader for a data set that makes whole batches, in this many processes."""
    if processes:
        # forked from this process, with its threads, GPU and process group, they might hang: the
        # server they are forked from has done nothing but the imports
        server = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload(list(IMPORTED))
        more |= {
            "multiprocessing_context": server,
            "persistent_workers": True,
            "worker_init_fn": partial(_begin, _lifeline()[0]),
        }
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=processes,
        collate_fn=_as_it_is,  # type: ignore[arg-type]
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(seed),  # else it would draw from torch's global one
        **more,
    )


class ToDevice:
    """Brings loaded batches to the device, each while the one before it is in use."""

    def __init__(self, device: torch.device) -> None:
        from timm.data.loader import PrefetchLoader

        # one for all passes: memory of the stream that it copies on is of use to no other
        self._prefetch = PrefetchLoader((), mean=MEAN, std=STD, device=device)  # type: ignore[arg-type]

    def __call__(self, loaded: Iterable[Loaded]) -> Iterator[tuple[Tensor, Tensor]]:
        """Images `(n, 3, H, W)`, normalised in float32, channels last, and labels, on the device.

        Raises `SettingsError` for an image that a loader could not read, and `UserError` if a
        loader process was lost.
        """
        self._prefetch.loader = _checked(loaded)  # type: ignore[assignment]
        for images, labels in self._prefetch:
            yield images.contiguous(memory_format=torch.channels_last), labels


def _checked(loaded: Iterable[Loaded]) -> Iterator[tuple[Tensor, Tensor]]:
    try:
        for batch in loaded:
            if isinstance(batch, str):
                raise SettingsError(batch)
            if batch is not None:
                yield batch
    except (RuntimeError, EOFError, OSError) as error:
        # the loader's pipe broke, or torch found that the loader was gone
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
            raise
        what = str(error).split("\n")[0] or type(error).__name__
        raise UserError(
            f"a process that loads images was lost ({what}): it is likely that memory ran out; run "
            "this again, with fewer data.loaders if it happens again"
        ) from None


def _as_it_is(batch: Loaded) -> Loaded:
    return batch


@cache
def _lifeline() -> tuple[Connection, Connection]:
    """A pipe between this process and its loaders, whose writing end closes with this process."""
    return multiprocessing.Pipe(duplex=False)


def _begin(lifeline: Connection, _number: int) -> None:
    """Prepare a loader process, which must neither outlive the training nor end before it."""
    warnings.filterwarnings("ignore", module="PIL")  # it warns of every image with odd metadata
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # batch systems signal every process; the training ends its loaders once it has saved
    signal.signal(signal.SIGTERM, _end_later)


def _end_with(lifeline: Connection) -> None:
    lifeline.poll(None)  # nothing is ever written: the other end has closed
    os._exit(1)


def _end_later(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(SAVING_SECONDS)
