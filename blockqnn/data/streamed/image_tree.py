"""Images in class folders or tar files, listed and checked before a training reads them."""

import hashlib
import io
import os
import stat
import tarfile
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from blockqnn.data.files.decoding import TYPES, UNREADABLE, eight_bit_rgb, in_words
from blockqnn.data.files.layout import class_files, few, hidden
from blockqnn.errors import SettingsError

AT_ONCE = 16
"""Files asked for at one time. A file system on a network answers many as fast as one."""


class ImageTree:
    """The images of one split, numbered in the order of their names, numbers in these by value.

    Hidden files and files whose names end in none of `types` are no images. A tree can be sent to
    other processes.
    """

    def __init__(
        self, path: Path, reader: Any, classes: tuple[str, ...], types: tuple[str, ...]
    ) -> None:
        self.path = path
        self.classes = classes
        self.types = types
        self._reader = reader
        self.is_tar = hasattr(reader, "tar_state")
        weakref.finalize(self, _close, reader)
        if self.is_tar:
            shown = [not hidden(sample[0].path) for sample in reader.samples]
            reader.samples, reader.targets = reader.samples[shown], reader.targets[shown]
            labels = reader.targets
        else:
            labels = [label for _, label in reader.samples]
        self.labels: npt.NDArray[np.int64] = np.asarray(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def __getstate__(self) -> dict[str, Any]:
        _close(self._reader)  # open files do not travel; the reader opens them again
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        weakref.finalize(self, _close, self._reader)

    def image(self, number: int) -> Image.Image:
        """The image of a number, in RGB. Raises `SettingsError` that names a file that is none."""
        try:
            file, _ = self._reader[number]
            with file, Image.open(file) as image:
                return eight_bit_rgb(image)
        except UNREADABLE as error:
            raise self._unreadable(number, error) from None

    def digest(self, number: int) -> bytes:
        """A hash of the bytes of an image that was read to its end, as `image` would."""
        try:
            file, _ = self._reader[number]
            with file:
                return digest_of_whole(file.read())
        except UNREADABLE as error:
            raise self._unreadable(number, error) from None

    def passed_over(self) -> Counter[str]:
        """How many files in tar files are no images, by what their names end in."""
        tars = [self.path] if self.path.is_file() else sorted(self.path.glob("*.tar"))
        found: Counter[str] = Counter()
        for path in tars:
            with tarfile.open(path, "r:*") as tar:
                _count_others(tar, self.types, found)
        return found

    def _unreadable(self, number: int, error: Exception) -> SettingsError:
        return SettingsError(
            f"{self.path / self.name(number)} is not a readable image ({in_words(error)}): mend "
            "or remove it"
        )

    def files(self) -> Iterator[tuple[str, int]]:
        """Every image's name below the split's directory, with slashes, and its bytes."""
        for number, size in enumerate(self._sizes()):
            yield self.name(number).replace(os.sep, "/"), size

    def check(self) -> None:
        """Raise `SettingsError` unless every class has images and its first one can be read."""
        count = np.bincount(self.labels, minlength=len(self.classes))
        if (empty := np.flatnonzero(count == 0)).size:
            names = few(self.classes[label] for label in empty)
            raise SettingsError(
                f"{self.path} has no images of class {names}: put images ({', '.join(self.types)}) "
                "in the folder, or remove it"
            )
        firsts = np.unique(self.labels, return_index=True)[1].tolist()
        if not self.is_tar:
            for number in firsts:
                file_size(self._reader.samples[number][0])
        # a tar file is read through one handle
        with ThreadPoolExecutor(1 if self.is_tar else AT_ONCE) as pool:
            for _ in pool.map(self.image, firsts):
                pass

    def name(self, number: int) -> str:
        """The name of an image's file below the split's directory."""
        if self.is_tar:
            member, tar, inner = self._reader.samples[number]
            return "/".join(name for name in (tar, inner and inner.name, member.name) if name)
        path: str = self._reader.samples[number][0]
        return path.removeprefix(f"{self.path}{os.sep}")

    def _sizes(self) -> Iterable[int]:
        if self.is_tar:
            return [member.size for member, _, _ in self._reader.samples]
        paths = [path for path, _ in self._reader.samples]
        lots = [paths[start : start + 1024] for start in range(0, len(paths), 1024)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return [size for sizes in pool.map(_file_sizes, lots) for size in sizes]


def digest_of_whole(content: bytes) -> bytes:
    """A hash of the bytes of an image, all of which were read. Raises errors of `UNREADABLE`."""
    with Image.open(io.BytesIO(content)) as image:
        image.draft("RGB", (1, 1))  # where a JPEG allows it, fewer pixels of every byte
        eight_bit_rgb(image)
    return hashlib.blake2b(content, digest_size=16).digest()


def _count_others(tar: tarfile.TarFile, types: tuple[str, ...], found: Counter[str]) -> None:
    """Count what is no image in a tar file and in those within it."""
    for member in tar:
        ending = os.path.splitext(member.name)[1].lower()
        if not member.isfile() or hidden(member.name) or ending in types:
            continue
        content = tar.extractfile(member) if ending == ".tar" else None
        if content is None:
            found[ending or "without ending"] += 1
            continue
        with tarfile.open(fileobj=content) as inner:
            _count_others(inner, types, found)


class _Files:
    """A reader of files as timm's readers are: pairs of an open file and a label, by number."""

    def __init__(self, samples: list[tuple[str, int]]) -> None:
        self.samples = samples

    def __getitem__(self, number: int) -> tuple[IO[bytes], int]:
        path, label = self.samples[number]
        return open(path, "rb"), label


def read_folder(path: Path) -> ImageTree:
    """The images in the class folders of a directory. Raises `SettingsError` if there are none."""
    from timm.utils.misc import natural_key

    found = class_files(path)
    classes = tuple(sorted(found.classes, key=natural_key))  # timm's order
    numbers = {name: number for number, name in enumerate(classes)}
    samples = [
        (str(file), numbers[name])
        for name, files in zip(found.classes, found.files, strict=True)
        for file in files
    ]
    samples.sort(key=lambda sample: (natural_key(sample[0]), sample[0]))
    return ImageTree(path, _Files(samples), classes, TYPES)


def read_tar(root: Path, split: str) -> ImageTree:
    """The images in `split.tar`, or in all tar files of the folder `split`.

    Every start reads the headers of the tar files anew. timm could keep a list of them, but as a
    pickle, which is neither written nor read here. Raises `SettingsError` if there are no images.
    """
    from timm.data.readers.img_extensions import add_img_extensions, get_img_extensions
    from timm.data.readers.reader_image_in_tar import ReaderImageInTar

    path = root / f"{split}.tar"
    if not path.is_file():
        path = root / split
        if not any(path.glob("*.tar")):
            raise SettingsError(
                f"{root} has neither {split}.tar nor {split}/*.tar: data.reader tar needs one of "
                "them, for train and for val"
            )
    add_img_extensions(TYPES)
    try:
        reader = ReaderImageInTar(str(path), cache_tarinfo=False)
    except (*UNREADABLE, AssertionError) as error:
        raise SettingsError(
            f"{path} is not a readable tar file of images ({error or 'no images'}): mend or "
            "replace it"
        ) from None
    classes = tuple(sorted(reader.class_name_to_idx, key=reader.class_name_to_idx.__getitem__))
    if "" in classes or len(classes) < 2:
        raise SettingsError(
            f"{path} has images of {len(classes)} classes, or without one: put every image in the "
            "folder, or the tar file, of its class, two classes or more"
        )
    return ImageTree(path, reader, classes, tuple(get_img_extensions()))


def file_size(path: str | Path) -> int:
    """Bytes of a file. Raises `SettingsError` for a pipe, say, which would be waited for."""
    try:
        found = os.stat(path)
    except OSError as error:  # a link to nowhere
        raise SettingsError(
            f"{path} cannot be read ({error.strerror}): mend or remove it"
        ) from None
    if not stat.S_ISREG(found.st_mode):
        raise SettingsError(f"{path} is not a readable image (it is no file): remove it")
    return found.st_size


def check_both(train: ImageTree, val: ImageTree) -> None:
    """Raise `SettingsError` unless both splits have the same classes, each with images."""
    for one, other in ((train, val), (val, train)):
        if missing := sorted(set(one.classes) - set(other.classes)):
            raise SettingsError(
                f"{one.path} and {other.path} must have the same class folders, but "
                f"{few(missing)} {'is' if len(missing) == 1 else 'are'} in the first only"
            )
    for tree in (train, val):
        tree.check()


def _close(reader: Any) -> None:
    """Close the tar files that a reader has open."""
    state = getattr(reader, "tar_state", {})
    for tar in state.values() if isinstance(state, dict) else [state]:
        for each in (*tar.children.values(), tar):
            if each.tf is not None:
                each.tf.close()
                each.tf = None


def _file_sizes(paths: list[str]) -> list[int]:
    return [file_size(path) for path in paths]
