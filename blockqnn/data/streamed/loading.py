"""Images are decoded and augmented in loader processes, and normalised on the device.

The work is timm's; here it gets random numbers that depend on an image's place in the training
alone, whichever process draws them, and errors that arrive as one sentence.
"""

import multiprocessing
import os
import random
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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
"""Number of an image, and the seed of its augmentation; None cuts the centre instead."""

Loaded = tuple[Tensor, Tensor] | str | None
"""Images `(n, 3, H, W)` uint8 and labels; the sentence of an error; nothing, of a skipped batch."""

IMPORTED = (
    "blockqnn.data.streamed.shards",
    "timm.data.loader",
    "timm.data.transforms_factory",
    "timm.data.readers.reader_image_in_tar",
)
"""What loader processes need, directly or through these; it takes seconds to import."""

SAVING_SECONDS = 60
"""How long a loader works on after SIGTERM: time for the training to come to a save."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the global generators that timm's transforms draw from, and puts them back."""
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
    """timm's resizing and centre crop, from a PIL image to a uint8 tensor."""
    from timm.data.transforms_factory import create_transform

    return create_transform(image_size, crop_pct=crop, use_prefetcher=True)


def augmented(image_size: int, recipe: Recipe) -> Any:
    """timm's random crop of a size and shape of its own, mirroring, and the recipe's policy."""
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


class TreeBatches(Dataset[Loaded]):
    """Batches of an `ImageTree`, asked for by their items."""

    def __init__(self, tree: ImageTree, centre: Any, augmented: Any = None) -> None:
        """`centre` and `augmented` make a uint8 tensor of a PIL image."""
        self._tree = tree
        self._centre = centre
        self._augmented = augmented

    def __getitem__(self, items: Sequence[Item]) -> Loaded:
        from timm.data.loader import fast_collate

        try:
            batch: tuple[Tensor, Tensor] = fast_collate([self._sample(*item) for item in items])
            return batch
        except SettingsError as error:  # raised here, it would arrive with a traceback inside
            return str(error)

    def _sample(self, number: int, seed: int | None) -> tuple[Tensor, int]:
        image, label = self._tree.image(number), int(self._tree.labels[number])
        if seed is None:
            return self._centre(image), label
        with seeded(seed):
            return self._augmented(image), label


class Loader:
    """Processes that load what they are asked for, kept from one pass over the images to the next.

    One pass at a time: a new one ends the one before.
    """

    def __init__(self, batches: Dataset[Loaded], processes: int, device: torch.device) -> None:
        self._asked = _Asked()
        self._loader = data_loader(batches, processes, device, sampler=self._asked)
        self._passes = 0

    def load(self, batches: Iterable[Sequence[Item]]) -> Iterator[Loaded]:
        """The batches of these items, in order."""
        self._passes += 1
        mine = self._passes
        self._asked.batches = batches
        loaded = iter(self._loader)
        while True:
            if self._passes != mine:
                raise RuntimeError("a newer pass over the images has begun")
            try:
                batch = next(loaded)
            except StopIteration:
                return
            yield batch

    def close(self) -> None:
        """End the processes; the next pass starts new ones."""
        self._passes += 1
        processes = self._loader._iterator
        # torch ends them when nothing refers to them, which a pass broken off by an error may do
        if isinstance(processes, _MultiProcessingDataLoaderIter):
            processes._shutdown_workers()
            self._loader._iterator = None


class _Asked:
    """A sampler that is given its batches."""

    batches: Iterable[Sequence[Item]] = ()

    def __iter__(self) -> Iterator[Sequence[Item]]:
        return iter(self.batches)


def data_loader(
    batches: Dataset[Loaded], processes: int, device: torch.device, seed: int = 0, **more: Any
) -> DataLoader[Loaded]:
    """torch's loader of a data set that makes whole batches."""
    if processes:
        # forked from this process, with its threads, GPU and process group, they might hang; they
        # are forked from one that has done nothing but the imports
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
        generator=torch.Generator().manual_seed(seed),  # else it draws from the training's
        **more,
    )


class ToDevice:
    """Brings loaded batches to the device, each while the one before is in use."""

    def __init__(self, device: torch.device) -> None:
        from timm.data.loader import PrefetchLoader

        # one for all passes: memory of the stream that it copies on is of use to no other
        self._prefetch = PrefetchLoader((), device=device)  # type: ignore[arg-type]

    def __call__(self, loaded: Iterable[Loaded]) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised float32 batches, channels last, and labels, on the device. Raises the
        `SettingsError` that a loader met.
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
        # its pipe broke, or torch found that it was gone
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
    """A pipe, to read and to write, whose end to write closes with this process."""
    return multiprocessing.Pipe(duplex=False)


def _begin(lifeline: Connection, _number: int) -> None:
    """What a loader process does first: it must neither outlive its parent nor end before it."""
    warnings.filterwarnings("ignore", module="PIL")  # odd metadata, once for every such image
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
