"""Images in WebDataset shards, which timm's reader reads from the first to the last.

Without random access no images can be held out, images are shuffled within a buffer, and a training
that goes on in mid-epoch reads the epoch from its beginning. timm leaves out an image that cannot
be read, with a warning.
"""

import logging
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from blockqnn.data.feed import Share
from blockqnn.data.files.decoding import UNREADABLE, eight_bit_rgb, in_words
from blockqnn.data.streamed.image_tree import digest_of_whole
from blockqnn.data.streamed.loading import Loaded, seeded
from blockqnn.errors import SettingsError
from blockqnn.seeds import seed_for
from blockqnn.settings import Recipe
from blockqnn.storage import read_json

KINDS = ("jpg", "png", "webp")
"""Endings of images in shards, of which timm's reader takes the first that a sample has."""


@dataclass(frozen=True)
class Shards:
    """The shards of one split below `root`, and how many images they hold."""

    root: Path
    names: tuple[str, ...]
    images: int

    def __len__(self) -> int:
        return self.images

    def reader(self, **options: Any) -> Any:
        """timm's reader of all shards, which yields pairs of a PIL image, as its file has it, and a
        label.
        """
        from timm.data.readers import create_reader

        logging.getLogger("timm.data.readers.reader_wds").addFilter(_worth_saying)
        split = f"{'::'.join(self.names)}|{self.images}"
        # an absolute path is never taken for a URL, say of a pipe, which would be run
        root = str(self.root.absolute())
        return create_reader("wds/", root=root, split=split, input_img_mode="", **options)

    def files(self) -> Iterator[tuple[str, int]]:
        """The name of every shard and its bytes."""
        for name in self.names:
            yield name, (self.root / name).stat().st_size

    def labels(self) -> Iterator[int]:
        """The labels of all images, read from the shards' `.cls` entries."""
        for name in self.names:
            yield from _labels(self.root / name)

    def read_whole(self, name: str) -> Iterator[tuple[str, bytes | str]]:
        """The name of every image of a shard, each with the hash of its bytes, which were read to
        their end, or with a sentence on what is wrong with it.
        """
        shard = self.root / name
        try:
            with tarfile.open(shard, "r:") as tar:
                for sample, members in groupby(filter(tarfile.TarInfo.isfile, tar), _sample_of):
                    yield f"{name}/{sample}", _digest(f"{shard}/{sample}", tar, members)
        except UNREADABLE as error:
            yield name, f"{shard} is not a readable shard ({error}): mend or replace it"

    def check(self) -> None:
        """Raise `SettingsError` unless the first image can be read."""
        if next(iter(self.reader()), None) is None:
            raise SettingsError(
                f"{self.root / self.names[0]} has no image that can be read: shards need a jpg, "
                "png or webp and a cls entry for each"
            )

    def check_training(self, recipe: Recipe, part: Share, everything: bool) -> None:
        """Raise `SettingsError` for a training that shards, or so few of them, do not allow."""
        if not everything:
            raise SettingsError(
                "data.reader is 'wds': shards are read from first to last, so no image can be held "
                "out: train on the split everything (set top to 0, so that nothing is selected), "
                "or give the images as folders or tar files"
            )
        if recipe.augment_repeats > 1:
            raise SettingsError(
                f"recipe.augment_repeats is {recipe.augment_repeats}: shards are read from first "
                "to last; give 0, or the images as folders or tar files"
            )
        if len(self.names) < part.world:
            raise SettingsError(
                f"{self.root} has {len(self.names)} training shards for {part.world} processes: "
                "give workers.processes no more than shards"
            )
        if len(self) < recipe.batch:
            raise SettingsError(
                f"recipe.batch is {recipe.batch}: there are {len(self)} training images; give no "
                "more than that"
            )


def read_shards(root: Path, *splits: str) -> Shards:
    """The shards of a split, which may have any of the names in `splits`.

    They are those that timm's `_info.json` lists. Without that file they are those called
    `split-*.tar` or `split/*.tar`, whose images are counted. Raises `SettingsError` if there are
    none.
    """
    try:
        import webdataset  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        raise SettingsError("data.reader is 'wds': install the package webdataset") from None
    for file in (root / "_info.json", root / "info.json"):
        if file.is_file():
            return _listed(root, file, splits)
    for split in splits:
        paths = sorted(root.glob(f"{split}-*.tar")) or sorted((root / split).glob("*.tar"))
        if paths:
            images = sum(1 for path in paths for _ in _labels(path))
            names = tuple(_plain_name(path.relative_to(root).as_posix()) for path in paths)
            return Shards(root, names, images)
    raise SettingsError(
        f"data.root is {str(root)!r}: it has neither {splits[0]}-*.tar nor {splits[0]}/*.tar nor "
        "an _info.json that names shards; data.reader wds needs them for train and for val"
    )


def class_names(root: Path, test: Shards) -> tuple[str, ...]:
    """The names of the classes by label: the lines of `classes.txt`, or, without it, numbers."""
    listed = root / "classes.txt"
    if listed.is_file():
        names = tuple(line.strip() for line in listed.read_text().splitlines() if line.strip())
    else:
        names = tuple(str(label) for label in range(max(test.labels(), default=-1) + 1))
    if len(names) < 2:
        raise SettingsError(f"{root} has shards of {len(names)} classes: two or more are needed")
    return names


@dataclass(frozen=True, kw_only=True)
class ShardBatches(IterableDataset[Loaded]):
    """One process's share of an epoch's batches, augmented.

    Every loader reads shards of its own. If they hold fewer images than its share, it begins them
    again. If they hold more, the rest is not read in this epoch.
    """

    shards: Shards
    augmented: Any
    """Makes a uint8 array of a PIL image."""
    batch: int
    """Images of a batch that are this process's share."""
    part: Share
    seed: int
    epoch: int
    first: int
    """Number of the first batch of the epoch that is wanted. None is yielded for those before."""

    def __iter__(self) -> Iterator[Loaded]:
        from timm.data.loader import fast_collate

        loader = get_worker_info()
        loaders, mine = (loader.num_workers, loader.id) if loader else (1, 0)
        order = seed_for(self.seed, "order", self.epoch) % 2**31
        reader = self.shards.reader(is_training=True, batch_size=self.batch, seed=order)
        # not from torch.distributed, which a loader process has no part in
        reader.dist_rank, reader.dist_num_replicas = self.part.rank, self.part.world
        images = iter(reader)
        step = mine  # loaders take turns
        while batch := list(islice(images, self.batch)):
            if step < self.first:
                yield None
            else:
                place = f"{self.epoch}/{self.part.rank}/{step}"
                yield fast_collate(
                    [self._sample(f"{place}/{n}", *pair) for n, pair in enumerate(batch)]
                )
            step += loaders

    def _sample(self, place: str, image: Any, label: int) -> tuple[torch.Tensor, int]:
        with seeded(seed_for(self.seed, "augment", place)):
            return self.augmented(eight_bit_rgb(image)), label


@dataclass(frozen=True)
class ShardTestBatches(IterableDataset[Loaded]):
    """Batches of all images in order. Loaders read shards of their own."""

    shards: Shards
    centre: Any
    """Makes a uint8 array of a PIL image."""
    batch: int

    def __iter__(self) -> Iterator[Loaded]:
        from timm.data.loader import fast_collate

        reader = self.shards.reader()
        reader.dist_rank, reader.dist_num_replicas = 0, 1
        images = iter(reader)
        while batch := list(islice(images, self.batch)):
            yield fast_collate(
                [(self.centre(eight_bit_rgb(image)), label) for image, label in batch]
            )


def _worth_saying(record: logging.LogRecord) -> bool:
    """Whether to log a message of timm, which tells every epoch that there is no _info.json."""
    return not record.getMessage().startswith("Dataset info file not found")


def _listed(root: Path, file: Path, splits: tuple[str, ...]) -> Shards:
    try:
        known = read_json(file)["splits"]
        entry = next(known[split] for split in splits if split in known)
        shards = Shards(
            root, tuple(map(_plain_name, entry["filenames"])), int(entry["num_samples"])
        )
    except StopIteration:
        names = " nor ".join(splits)
        raise SettingsError(f"{file} names no split {names}: data.reader wds needs it") from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise SettingsError(
            f"{file} is not what timm writes about shards ({error!r}): mend or remove it"
        ) from None
    if missing := [name for name in shards.names if not (root / name).is_file()]:
        raise SettingsError(f"{root / missing[0]} is not there, but {file.name} names it")
    return shards


def _plain_name(name: str) -> str:
    """The name of a shard below its directory.

    Raises `SettingsError` for a name that WebDataset would take for several names, for a number of
    images or for a place elsewhere.
    """
    if not re.fullmatch(r"(?!/)[^{}|:\n]+\.tar", name) or ".." in name.split("/"):
        raise SettingsError(
            f"a shard is called {name!r}: give names that end in .tar, below the directory, "
            "without : | { or }"
        )
    return name


def _sample_of(member: tarfile.TarInfo) -> str:
    """The sample that a file belongs to: its name up to the first point after all slashes."""
    folder, slash, file = member.name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _digest(sample: str, tar: tarfile.TarFile, members: Iterable[tarfile.TarInfo]) -> bytes | str:
    """The hash of a sample's image, or what is wrong with the sample."""
    files = {member.name.rpartition("/")[2].partition(".")[2].lower(): member for member in members}
    image = next((files[kind] for kind in KINDS if kind in files), None)
    if image is None or "cls" not in files:
        missing = "class (cls)" if image else f"image ({', '.join(KINDS)})"
        has = ", ".join(sorted(files))
        return f"{sample} has no {missing}, it has {has}: write it again, or leave it out"
    content = tar.extractfile(image)
    try:
        return digest_of_whole(content.read() if content else b"")
    except UNREADABLE as error:
        what = in_words(error)
        return f"{sample}.* is not a readable image ({what}): write it again, or leave it out"


def _labels(shard: Path) -> Iterator[int]:
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if member.isfile() and Path(member.name).name.partition(".")[2] == "cls":
                    content = tar.extractfile(member)
                    yield int(content.read()) if content else 0
    except UNREADABLE as error:
        raise SettingsError(
            f"{shard} is not a readable shard ({error}): mend or replace it"
        ) from None
