"""A data set frozen in one file: the same bytes whenever and wherever it is made, so that it can be
kept, shared and checked by its hash. Of images that stay on disk the file only says what they are.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from blockqnn.data.archive import write_archive
from blockqnn.data.read import read
from blockqnn.errors import UserError
from blockqnn.settings import DataSettings
from blockqnn.storage import write_atomically

MANIFEST_FORMAT = "blockqnn streamed images 1"


def prepare(settings: DataSettings, to: Path) -> None:
    """Write all images of a data set that fits into memory to the file `to`, a NumPy archive; of a
    streamed one a manifest, JSON.

    Reading the archive (`data.name=prepared`, `data.root` the file) gives the same `Dataset`,
    fingerprint included: `holdout`, `images` and the seed are applied on reading. Two calls write
    the same bytes: nothing is compressed and no time is kept. The manifest has the classes and, of
    train and val each, the number of images, their bytes and a hash of their names and sizes: it
    changes when they do. Raises `SettingsError` when the data set is not to be had, `UserError`
    when the file cannot be written.
    """
    write = _manifest(settings) if settings.streamed else _archive(settings)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(to, write)
    except OSError as error:
        raise UserError(
            f"cannot write the prepared images to {to} ({error.strerror or error}): free some "
            "space, or name another file with --to"
        ) from None


def _archive(settings: DataSettings) -> Callable[[BinaryIO], object]:
    source = read(settings)
    return lambda file: write_archive(file, source, settings.name)


def _manifest(settings: DataSettings) -> Callable[[BinaryIO], object]:
    from blockqnn.data.streamed.stream import open_stream  # timm, which images in memory do without

    stream = open_stream(settings, seed=0)
    manifest: dict[str, Any] = {
        "format": MANIFEST_FORMAT,
        "name": settings.name,
        "classes": list(stream.classes),
    }
    for part, images in (("train", stream.train), ("val", stream.test)):
        digest, total = hashlib.sha256(), 0
        for name, size in images.files():
            digest.update(f"{name}/{size}\n".encode(errors="surrogateescape"))
            total += size
        manifest[part] = {"images": len(images), "bytes": total, "sha256": digest.hexdigest()}
    text = json.dumps(manifest, indent=1) + "\n"
    return lambda file: file.write(text.encode())
