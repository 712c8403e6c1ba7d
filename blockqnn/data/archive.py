"""The file of prepared images: a NumPy archive whose bytes depend on the images alone."""

import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from blockqnn.data.source import Source
from blockqnn.errors import SettingsError

FORMAT = "blockqnn images 1"
"""First array of a file; later versions of this package read it or say that they cannot."""

EPOCH = (1980, 1, 1, 0, 0, 0)
"""Date of every entry: the earliest that a zip file can have."""

DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,  # NotImplementedError too: bits of an entry that say encrypted, or compressed
    MemoryError,  # a length that nobody wrote
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""Errors that reading a damaged or foreign file may raise."""


def write_archive(file: BinaryIO, source: Source, name: str) -> None:
    """Write all images of the data set `name`: the same bytes whenever it is called.

    It does what `numpy.savez` does, but keeps nothing of the time or the machine.
    """
    arrays = {
        "format": np.array(FORMAT),
        "name": np.array(source.name or name),
        "classes": np.array(source.classes),
        "train_pixels": source.train_pixels,
        "train_labels": source.train_labels,
        "test_pixels": source.test_pixels,
        "test_labels": source.test_labels,
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for key, array in arrays.items():
            entry = zipfile.ZipInfo(f"{key}.npy", EPOCH)
            entry.create_system = 3  # otherwise the operating system's number
            entry.external_attr = 0o644 << 16
            ordered = np.asarray(array, order="C")
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, ordered, version=(1, 0), allow_pickle=False)


def read_prepared(path: Path) -> Source:
    """The images in a file that `prepare` wrote, every array's checksum compared.

    Raises `SettingsError` for any other file, and for a damaged one.
    """
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it is a single array")
            # NumPy stops reading where a damaged header says that the array ends
            if damaged := archive.zip.testzip():
                raise ValueError(f"{damaged} in it is damaged")
            version = str(archive["format"])
            if version != FORMAT:
                raise ValueError(f"its format is {version!r}, this version reads {FORMAT!r}")
            return _source(archive)
    except FileNotFoundError:
        raise SettingsError(
            f"data.root is {str(path)!r}: there is no such file; write it with blockqnn data, or "
            "fetch it with dvc pull"
        ) from None
    except DAMAGE as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise SettingsError(
            f"data.root is {str(path)!r}: this is not a whole file of prepared images ({what}); "
            "write it again with blockqnn data, or fetch it with dvc pull"
        ) from None


def _source(archive: Mapping[str, npt.NDArray[Any]]) -> Source:
    """The images of an archive; raises `ValueError` if they and their labels do not fit."""
    classes = tuple(str(name) for name in archive["classes"])
    arrays = {}
    for part in ("train", "test"):
        pixels, labels = archive[f"{part}_pixels"], archive[f"{part}_labels"]
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or labels.shape != pixels.shape[:1]:
            raise ValueError(f"its {part} images and labels do not belong together")
        if labels.dtype != np.int64 or not np.isin(labels, np.arange(len(classes))).all():
            raise ValueError(f"its {part} labels are not those of its classes")
        arrays[f"{part}_pixels"], arrays[f"{part}_labels"] = pixels, labels
    return Source(classes, **arrays, name=str(archive["name"]))
