"""The images of a final training, whether they lie in memory or are read from disk meanwhile."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from blockqnn.data.dataset import load
from blockqnn.data.feed import Feed, Share
from blockqnn.data.memory_feed import MemoryFeed, normalised_batches
from blockqnn.settings import DataSettings, Recipe


@dataclass(frozen=True)
class ImageFacts:
    """What result.json says of the images: plain values.

    `mean` and `std` have one number a channel, for pixels from 0 to 1; `image_size` is in pixels;
    `fingerprint` names all images, their classes and their split.
    """

    name: str
    classes: tuple[str, ...]
    in_channels: int
    image_size: int
    fingerprint: str
    train_images: int
    held_out_images: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Images:
    """The opened images of a final training and of its evaluation.

    `feed(recipe, seed, device, share)` makes the training batches of one process.
    `test_batches(device, image_size)` yields all test images `(n, C, H, W)`, normalised, and their
    labels `(n,)`. Their size is that of training for None; images in memory have no other.
    """

    facts: ImageFacts
    feed: Callable[[Recipe, int, torch.device, Share], Feed]
    test_batches: Callable[[torch.device, int | None], Iterator[tuple[Tensor, Tensor]]]


def open_images(settings: DataSettings, seed: int, everything: bool = False) -> Images:
    """The images that the settings name, split by `seed`; with `everything` none is held out.

    Raises `SettingsError` when they are not to be had.
    """
    return (_on_disk if settings.streamed else _in_memory)(settings, seed, everything)


def _in_memory(settings: DataSettings, seed: int, everything: bool) -> Images:
    data = load(settings, seed)
    if everything:
        data = data.everything()

    def feed(recipe: Recipe, seed: int, device: torch.device, share: Share) -> Feed:
        return MemoryFeed(data.to(device), recipe, seed, device, share)

    def test_batches(device: torch.device, _: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        moved = data.to(device)
        return normalised_batches(moved, moved.test)

    named = (data.name, data.classes, data.in_channels, data.image_size, data.fingerprint)
    mean, std = (tuple((moment.flatten() / 255).tolist()) for moment in (data.mean, data.std))
    facts = ImageFacts(*named, len(data.train), len(data.held_out), mean, std)
    return Images(facts, feed, test_batches)


def _on_disk(settings: DataSettings, seed: int, everything: bool) -> Images:
    # here, because it imports timm, which takes a second and which images in memory do without
    from blockqnn.data.streamed.stream import open_stream
    from blockqnn.data.streamed.stream_feed import StreamFeed

    stream = open_stream(settings, seed)
    named = (stream.name, stream.classes, stream.in_channels, stream.image_size, stream.fingerprint)
    facts = ImageFacts(*named, *stream.counts(everything), stream.mean, stream.std)
    return Images(facts, partial(StreamFeed, stream, everything=everything), stream.test_batches)
