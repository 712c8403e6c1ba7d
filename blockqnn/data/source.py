"""All images of a data set, as every reader hands them on."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

Labels = npt.NDArray[np.int64]


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
