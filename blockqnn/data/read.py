"""Images read into memory: from scikit-learn, torchvision, class folders or a prepared file."""

from pathlib import Path

import numpy as np

from blockqnn.data.archive import read_prepared
from blockqnn.data.folder import folder_source
from blockqnn.data.source import Labels, Pixels, Source
from blockqnn.data.split import with_test_set
from blockqnn.errors import SettingsError
from blockqnn.settings import DataSettings


def read(settings: DataSettings) -> Source:
    """All images of a data set; raises `SettingsError` when they are not to be had."""
    root = Path(settings.root or "").expanduser()
    if settings.name == "digits":
        return _digits()
    if settings.name == "folder":
        return folder_source(root, settings.image_size or 0)
    if settings.name == "prepared":
        return read_prepared(root)
    return _torchvision(settings.name, str(root), settings.download)


def _digits() -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # 4-bit grey values become the full range of a byte
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    return with_test_set(tuple(str(digit) for digit in digits.target_names), pixels, labels)


def _torchvision(name: str, root: str, download: bool) -> Source:
    from torchvision import datasets

    known = {
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
        "fashion-mnist": datasets.FashionMNIST,
    }
    pixels: list[Pixels] = []
    labels: list[Labels] = []
    for is_train in (True, False):
        try:
            part = known[name](root, train=is_train, download=download)
        except (RuntimeError, AssertionError, ValueError, EOFError) as error:
            what = str(error) or "its files do not have their format"
            raise SettingsError(
                f"data.root is {root!r}: {name} is not there or not whole ({what}); set "
                "data.download=true to fetch it, after deleting a damaged one, or data.root to "
                "where it lies"
            ) from None
        except OSError as error:
            raise SettingsError(
                f"data.root is {root!r}: {name} could not be read or fetched ({error}); "
                "check the directory and, with data.download=true, the network"
            ) from None
        images = np.asarray(part.data, dtype=np.uint8)
        pixels.append(images if images.ndim == 4 else images[..., None])
        labels.append(np.asarray(part.targets, dtype=np.int64))
        if len(images) != len(labels[-1]):
            raise SettingsError(
                f"data.root is {root!r}: {name} has {len(images)} images, but "
                f"{len(labels[-1])} labels; delete it and fetch it again"
            )
    return Source(tuple(part.classes), pixels[0], labels[0], pixels[1], labels[1])
