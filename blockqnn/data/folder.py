"""Class folders of images, resized once and kept in memory."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING

import numpy as np

from blockqnn.data.source import Labels, Pixels, Source
from blockqnn.data.split import with_test_set
from blockqnn.errors import SettingsError
from blockqnn.storage import write_atomically

if TYPE_CHECKING:
    from PIL import Image


def folder_source(root: Path, size: int) -> Source:
    """Images of class folders below `root`, or below `root/train` and `root/test` (or `root/val`).

    They are `size` pixels a side. Raises `SettingsError`.
    """
    train = root / "train"
    test = next((path for path in (root / "test", root / "val") if path.is_dir()), None)
    if test is None and train.is_dir() and any(path.is_dir() for path in train.iterdir()):
        raise SettingsError(
            f"data.root is {str(root)!r}: it has train, but neither test nor val beside it; name "
            "the folder of test images test, or set data.root to train to cut one off"
        )
    if not (train.is_dir() and test is not None):
        return with_test_set(*_class_folders(root, size))
    classes, train_pixels, train_labels = _class_folders(train, size)
    test_classes, test_pixels, test_labels = _class_folders(test, size)
    if test_classes != classes:
        odd = sorted(set(classes) ^ set(test_classes))
        raise SettingsError(
            f"data.root is {str(root)!r}: train and {test.name} must have the same class folders, "
            f"but {', '.join(odd[:5])} is in one of them only"
        )
    return Source(classes, train_pixels, train_labels, test_pixels, test_labels)


def _class_folders(root: Path, size: int) -> tuple[tuple[str, ...], Pixels, Labels]:
    """Images resized once: the result is kept in `root/.blockqnn` where that can be written."""
    classes, files, labels = _listed(root)
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
    return classes, pixels, labels


def _listed(root: Path) -> tuple[tuple[str, ...], list[Path], Labels]:
    """Classes, images and labels; hidden files and folders, at any depth, are no images."""
    from torchvision.datasets import folder

    def is_image(path: str) -> bool:
        hidden = any(part.startswith(".") for part in Path(path).relative_to(root).parts)
        return not hidden and folder.has_file_allowed_extension(path, folder.IMG_EXTENSIONS)

    try:
        classes = tuple(name for name in folder.find_classes(root)[0] if not name.startswith("."))
        if len(classes) < 2:
            raise SettingsError(
                f"data.root is {str(root)!r}: it has {len(classes)} class folders; give a "
                "directory with one folder of images a class, two classes or more"
            )
        check_names(root, classes)
        numbers = {name: number for number, name in enumerate(classes)}
        samples = folder.make_dataset(root, numbers, is_valid_file=is_image)
    except OSError as error:
        raise SettingsError(
            f"data.root is {str(root)!r}: {error}; give a directory with one folder of images a "
            f"class ({', '.join(folder.IMG_EXTENSIONS)})"
        ) from None
    labels = np.asarray([label for _, label in samples], dtype=np.int64)
    return classes, [Path(path) for path, _ in samples], labels


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
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            upright = _eight_bit_rgb(ImageOps.exif_transpose(image))
            # the short side fits, the centre is kept: no image is stretched
            fitted = ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC)
            return np.asarray(fitted, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from None


def _eight_bit_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB; what is transparent becomes white."""
    from PIL import Image

    if image.mode.startswith("I;16"):  # PIL would cut every value above 255 down to it
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("pixels of 32 bits have no known range, save it with 8 or 16")
    elif image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        # colours under transparent pixels are arbitrary, and black line art may have no others
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _unreadable(file: Path, error: Exception | str) -> SettingsError:
    return SettingsError(f"{file} is not a readable image ({error}): mend or remove it")


def check_names(path: Path, names: Iterable[str]) -> None:
    """Raise `SettingsError` for class folders whose names no table, log or JSON could hold."""
    for name in names:
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            raise SettingsError(
                f"{path} has a class folder called {name!r}: give it a name in UTF-8 without "
                "control characters"
            )
