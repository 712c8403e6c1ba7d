"""Images set apart, each class in proportion: held-out ones, and a test set where there is none."""

import numpy as np
import numpy.typing as npt

from blockqnn.data.source import Labels, Pixels, Source
from blockqnn.errors import SettingsError
from blockqnn.settings import DataSettings

Numbers = npt.NDArray[np.int64]
"""Numbers of images, counted from 0."""

TEST_SHARE = 0.2
"""Share of the images that become the test set where a source has none."""


def with_test_set(classes: tuple[str, ...], pixels: Pixels, labels: Labels) -> Source:
    """The images with a test set cut off, which is the same whatever the seed of a search is.

    Raises `SettingsError` for a class of fewer than three images.
    """
    sizes = np.bincount(labels)
    if sizes.min() < 3:
        smallest = classes[int(sizes.argmin())]
        raise SettingsError(
            f"class {smallest!r} has {sizes.min()} images: give 3 or more, for training, "
            "validation, test"
        )
    train, test = _split(labels, max(len(classes), round(TEST_SHARE * len(labels))), seed=0)
    return Source(classes, pixels[train], labels[train], pixels[test], labels[test])


def stratified(
    settings: DataSettings, labels: Labels, count: int, seed: int
) -> tuple[Numbers, Numbers]:
    """Numbers of the images in two groups: the rest, and `count` of them.

    Both are sorted and have the classes in proportion. Raises `SettingsError` when either would
    lack a class.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    if sizes.min() < 2 or len(labels) - count < len(classes) or count < len(classes):
        raise SettingsError(
            f"data.{settings.name} cannot be split: {len(labels)} images in {len(classes)} "
            f"classes, the smallest of {sizes.min()}, with {count} to set apart; give at least 2 "
            "images in every class, and data.images and data.holdout that leave one of each on "
            "both sides"
        )
    return _split(labels, count, seed % 2**32)


def _split(labels: Labels, count: int, seed: int) -> tuple[Numbers, Numbers]:
    from sklearn.model_selection import train_test_split

    numbers = np.arange(len(labels))
    rest, chosen = train_test_split(numbers, test_size=count, stratify=labels, random_state=seed)
    return np.sort(rest), np.sort(chosen)
