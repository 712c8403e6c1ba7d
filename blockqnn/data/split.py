"""Images set apart, each class in proportion: the held-out ones, and a test set where none is."""

import numpy as np
import numpy.typing as npt

from blockqnn.data.source import Labels, Pixels, Source
from blockqnn.errors import SettingsError
from blockqnn.settings import DataSettings

TEST_SHARE = 0.2
"""Share of the images that become the test set where a source has none."""


def with_test_set(classes: tuple[str, ...], pixels: Pixels, labels: Labels) -> Source:
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


def stratified(
    settings: DataSettings, labels: Labels, count: int, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices split into (the rest, `count` of them), classes in proportion."""
    from sklearn.model_selection import train_test_split

    classes, sizes = np.unique(labels, return_counts=True)
    if sizes.min() < 2 or len(labels) - count < len(classes) or count < len(classes):
        smallest = sizes.min()
        raise SettingsError(
            f"data.{settings.name} cannot be split: {len(labels)} images in {len(classes)} "
            f"classes, the smallest of {smallest}, with {count} to set apart; give at least 2 "
            "images in every class, and data.images and data.holdout that leave one of each on "
            "both sides"
        )
    rest, chosen = train_test_split(
        np.arange(len(labels)), test_size=count, stratify=labels, random_state=seed % 2**32
    )
    return np.sort(rest), np.sort(chosen)
