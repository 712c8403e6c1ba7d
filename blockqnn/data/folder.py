"""Class folders of images, resized once and kept in memory."""

import hashlib
import logging
from pathlib import Path
from stat import S_ISREG

import numpy as np
from PIL import Image, ImageOps

from blockqnn.data.files.decoding import UNREADABLE, eight_bit_rgb, in_words
from blockqnn.data.files.layout import class_files, few, find_parts
from blockqnn.data.source import Labels, Pixels, Source
from blockqnn.data.split import with_test_set
from blockqnn.errors import SettingsError
from blockqnn.storage import write_atomically

log = logging.getLogger(__name__)


def folder_source(root: Path, size: int) -> Source:
    """Images of class folders below `root`, or below its folders of training and test images.

    They are `size` pixels a side. Images that are in both sets are named in the log. Raises
    `SettingsError`.
    """
    parts = find_parts(root, ", or set data.root to train to cut one off")
    classes, files, pixels, labels = _class_folders(parts.train, size)
    if parts.test is None:
        source = with_test_set(classes, pixels, labels)
    else:
        test_classes, test_files, test_pixels, test_labels = _class_folders(parts.test, size)
        if test_classes != classes:
            odd = sorted(set(classes) ^ set(test_classes))
            raise SettingsError(
                f"data.root is {str(root)!r}: {parts.train.name} and {parts.test.name} must have "
                f"the same class folders, but {few(odd)} is in one of them only"
            )
        source = Source(classes, pixels, labels, test_pixels, test_labels)
        files, pixels = files + test_files, np.concatenate([pixels, test_pixels])
    _name_twins(root, source, files, pixels)
    return source


def _name_twins(root: Path, source: Source, files: list[Path], pixels: Pixels) -> None:
    """Warn of test images that are training images too, of which these are the files."""
    trained = {_content(image) for image in source.train_pixels}
    twins = [content for image in source.test_pixels if (content := _content(image)) in trained]
    if not twins:
        return
    pairs = zip(files, pixels, strict=True)
    named = [file for file, image in pairs if _content(image) == twins[0]]
    log.warning(
        "%s: test images that are training images too, which flatters every network: %d, say %s",
        *(root, len(twins)),
        " and ".join(str(file.relative_to(root)) for file in (named[0], named[-1])),
    )


def _content(image: Pixels) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def _class_folders(root: Path, size: int) -> tuple[tuple[str, ...], list[Path], Pixels, Labels]:
    """Images resized once: the result is kept in `root/.blockqnn` where that can be written."""
    found = class_files(root)
    files = [file for of_class in found.files for file in of_class]
    labels = np.repeat(np.arange(len(found.classes)), [len(each) for each in found.files])
    cache = root / ".blockqnn" / f"{_digest(root, files, size)[:16]}.npy"
    pixels = _cached(cache, (len(files), size, size, 3))
    if pixels is None:
        pixels = np.empty((len(files), size, size, 3), np.uint8)
        for number, file in enumerate(files):
            pixels[number] = _resized(file, size)
        try:
            cache.parent.mkdir(exist_ok=True)
            write_atomically(cache, lambda file: np.save(file, pixels, allow_pickle=False))
        except OSError:  # a read-only or full disk costs the next start some time, nothing else
            pass
    return found.classes, files, pixels, labels.astype(np.int64)


def _digest(root: Path, files: list[Path], size: int) -> str:
    """A hash that changes with any file and with the size of images."""
    digest = hashlib.sha256(f"{size}".encode())
    for file in files:
        try:
            stat = file.stat()
        except OSError as error:  # a link to nowhere
            raise _unreadable(file, error) from None
        if not S_ISREG(stat.st_mode):  # a pipe, say, which would be waited for
            raise _unreadable(file, "it is no file")
        text = f"{file.relative_to(root)}/{stat.st_size}/{stat.st_mtime_ns}\n"
        digest.update(text.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _cached(cache: Path, shape: tuple[int, ...]) -> Pixels | None:
    try:
        pixels = np.load(cache, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _resized(file: Path, size: int) -> Pixels:
    try:
        with Image.open(file) as image:
            # the short side fits, the centre is kept: no image is stretched
            fitted = ImageOps.fit(eight_bit_rgb(image), (size, size), Image.Resampling.BICUBIC)
            return np.asarray(fitted, dtype=np.uint8)
    except UNREADABLE as error:
        raise _unreadable(file, in_words(error)) from None


def _unreadable(file: Path, what: Exception | str) -> SettingsError:
    return SettingsError(f"{file} is not a readable image ({what}): mend or remove it")
