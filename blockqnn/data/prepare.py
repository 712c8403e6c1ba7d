"""A data set in one file, to be kept, shared and checked by its hash.

It has the same bytes whenever and wherever it is made. Of streamed images it only says what they
are.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from blockqnn.data.archive import write_archive
from blockqnn.data.read import read
from blockqnn.errors import UserError
from blockqnn.settings import DataSettings
from blockqnn.storage import as_json, write_atomically

MANIFEST_FORMAT = "blockqnn streamed images 1"
"""Format of a manifest; a changed one gets another number."""


def prepare(settings: DataSettings, to: Path) -> None:
    """Write the images to the file `to`, a NumPy archive; of streamed ones a manifest in JSON.

    Reading the archive (`data.name=prepared`, `data.root` the file) gives the same `Dataset`,
    fingerprint included: `holdout`, `images` and the seed are applied on reading. The manifest has
    the classes, and for train and val the number of images, their bytes, and a hash of their names
    and sizes. Raises `SettingsError` when the data set is not to be had, and `UserError` when the
    file cannot be written.
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
    manifest: dict[str, Any] = {"format": MANIFEST_FORMAT, "name": settings.name}
    manifest["classes"] = list(stream.classes)
    for part, images in (("train", stream.train), ("val", stream.test)):
        digest, total = hashlib.sha256(), 0
        for name, size in images.files():
            digest.update(f"{name}/{size}\n".encode(errors="surrogateescape"))
            total += size
        manifest[part] = {"images": len(images), "bytes": total, "sha256": digest.hexdigest()}
    text = as_json(manifest)
    return lambda file: file.write(text.encode())
