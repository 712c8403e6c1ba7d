"""All images of a data set as every reader hands them on, in memory."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""Images `(N, H, W, C)`."""

Labels = npt.NDArray[np.int64]
"""Numbers of classes `(N,)`, counted from 0."""


@dataclass(frozen=True)
class Source:
    """The official training and test sets of a data set."""

    classes: tuple[str, ...]
    """Names of the classes, by label."""
    train_pixels: Pixels
    train_labels: Labels
    test_pixels: Pixels
    test_labels: Labels
    name: str | None = None
    """Name of the data set if the file of prepared images gives it, else that of the settings."""
