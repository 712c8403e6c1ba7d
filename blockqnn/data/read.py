"""Where images come from: scikit-learn's digits, torchvision's sets, your own class folders, files
of prepared images.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from blockqnn.settings.search import DataSettings
from blockqnn.errors import SettingsError
from blockqnn.storage.files import write_atomically

if TYPE_CHECKING:
    from PIL import Image

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

TEST_SHARE = 0.2
"""Share of the images that become the test set where a source has none."""


@dataclass(frozen=True)
class Source:
    """Images `(N, H, W, C)` uint8 and labels `(N,)` int64: official training and test sets."""

    classes: tuple[str, ...]
    train_pixels: Pixels
    train_labels: Labels
    test_pixels: Pixels
    test_labels: Labels
    name: str | None = None
    """Of the data set, where the settings do not say it: for prepared images."""


def read(settings: DataSettings) -> Source:
    """All images of a data set; raises `SettingsError` when they are not to be had."""
    if settings.name == "digits":
        return _digits()
    if settings.name == "folder":
        return _folder(Path(settings.root or "").expanduser(), settings.image_size or 0)
    if settings.name == "prepared":
        from blockqnn.data.prepare import read_prepared  # which knows this module

        return read_prepared(Path(settings.root or "").expanduser())
    return _torchvision(settings)


def _digits() -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # 4-bit grey values become the full range of a byte
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    return _with_test_set(tuple(str(digit) for digit in digits.target_names), pixels, labels)


def _torchvision(settings: DataSettings) -> Source:
    from torchvision import datasets

    known = {
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
        "fashion-mnist": datasets.FashionMNIST,
    }
    root = str(Path(settings.root or "").expanduser())
    pixels: list[Pixels] = []
    labels: list[Labels] = []
    for is_train in (True, False):
        try:
            part = known[settings.name](root, train=is_train, download=settings.download)
        except (RuntimeError, AssertionError, ValueError, EOFError) as error:
            what = str(error) or "its files do not have their format"
            raise SettingsError(
                f"data.root is {root!r}: {settings.name} is not there or not whole ({what}); set "
                "data.download=true to fetch it, after deleting a damaged one, or data.root to "
                "where it lies"
            ) from None
        except OSError as error:
            raise SettingsError(
                f"data.root is {root!r}: {settings.name} could not be read or fetched ({error}); "
                "check the directory and, with data.download=true, the network"
            ) from None
        images = np.asarray(part.data, dtype=np.uint8)
        pixels.append(images if images.ndim == 4 else images[..., None])
        labels.append(np.asarray(part.targets, dtype=np.int64))
        if len(images) != len(labels[-1]):
            raise SettingsError(
                f"data.root is {root!r}: {settings.name} has {len(images)} images, but "
                f"{len(labels[-1])} labels; delete it and fetch it again"
            )
    return Source(tuple(part.classes), pixels[0], labels[0], pixels[1], labels[1])


def _folder(root: Path, size: int) -> Source:
    """Class folders under `root`, or under `root/train` and `root/test` (or `root/val`)."""
    train = root / "train"
    test = next((path for path in (root / "test", root / "val") if path.is_dir()), None)
    if test is None and train.is_dir() and any(path.is_dir() for path in train.iterdir()):
        raise SettingsError(
            f"data.root is {str(root)!r}: it has train, but neither test nor val beside it; name "
            "the folder of test images test, or set data.root to train to cut one off"
        )
    if not (train.is_dir() and test is not None):
        return _with_test_set(*_class_folders(root, size))
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
    """Images resized once: the result is kept in `root/.blockqnn` where that can be written.

    Hidden files and folders, at any depth, are not images.
    """
    from torchvision.datasets import folder

    from blockqnn.data.streamed.image_tree import check_names

    def is_image(path: str) -> bool:
        hidden = any(part.startswith(".") for part in Path(path).relative_to(root).parts)
        return not hidden and folder.has_file_allowed_extension(path, folder.IMG_EXTENSIONS)

    try:
        classes = [name for name in folder.find_classes(root)[0] if not name.startswith(".")]
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
    files = [Path(path) for path, _ in samples]
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
    cache = root / ".blockqnn" / f"{digest.hexdigest()[:16]}.npy"
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
    return tuple(classes), pixels, labels


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


def _with_test_set(classes: tuple[str, ...], pixels: Pixels, labels: Labels) -> Source:
    """A test set cut off by a seed of its own, the same whatever the search's seed is."""
    from sklearn.model_selection import train_test_split

    sizes = np.bincount(labels)
    if sizes.min() < 3:
        smallest = classes[int(sizes.argmin())]
        raise SettingsError(
            f"class {smallest!r} has {sizes.min()} images: give 3 or more, for training, "
            "validation, test"
        )
    count = max(len(classes), round(TEST_SHARE * len(labels)))
    train, test = train_test_split(
        np.arange(len(labels)), test_size=count, stratify=labels, random_state=0
    )
    train, test = np.sort(train), np.sort(test)
    return Source(classes, pixels[train], labels[train], pixels[test], labels[test])
