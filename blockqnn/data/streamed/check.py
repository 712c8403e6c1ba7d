"""Every image of a data set on disk read once, before a training of hours begins."""

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from blockqnn.data.files.layout import few
from blockqnn.data.streamed.image_tree import ImageTree
from blockqnn.data.streamed.stream import open_stream
from blockqnn.errors import SettingsError
from blockqnn.settings import DataSettings
from blockqnn.storage import read_json, write_json

log = logging.getLogger(__name__)

CHECKED = "checked.json"
"""File of the checks that found nothing, by what was checked."""

LOT = 256
"""Images that a thread takes at a time."""


def check_images(settings: DataSettings, notes: Path, threads: int) -> None:
    """Read all images of folders or tar files to their ends, in so many threads.

    Images that are in both sets are named in the log. What was found whole is noted in a file in
    the directory `notes`, and not read again while no name and no size changes. Shards are read
    from first to last alone, and are not checked. Raises `SettingsError` that names the damaged
    files.
    """
    stream = open_stream(settings, 0)
    if not (isinstance(stream.train, ImageTree) and isinstance(stream.test, ImageTree)):
        return
    known: dict[str, Any] = _noted(notes)
    checked = f"{Path(settings.root or '').expanduser().resolve()} {stream.fingerprint}"
    if checked in known:
        twins = known[checked]
    else:
        total = len(stream.train) + len(stream.test)
        log.info("%s: each of %s images is read once, to find damaged ones", settings.root, total)
        twins = _read(stream.train, stream.test, threads)
        try:
            notes.mkdir(parents=True, exist_ok=True)
            write_json({**known, checked: twins}, notes / CHECKED)
        except OSError:  # a full disk costs the next start some time, nothing else
            pass
    if twins:
        log.warning(
            "%s: test images that are training images too, which flatters every network: %d, say "
            "%s",
            *(settings.root, len(twins), few(twins, 2)),
        )


def _read(train: ImageTree, test: ImageTree, threads: int) -> list[str]:
    """The names of test images that are training images too; raises `SettingsError`."""
    damaged: list[str] = []
    found = []
    for tree in (train, test):
        lots = [range(first, min(first + LOT, len(tree))) for first in range(0, len(tree), LOT)]
        with ThreadPoolExecutor(1 if tree.is_tar else threads) as pool:
            digests: list[bytes] = []
            for read, errors in pool.map(lambda lot, tree=tree: _read_lot(tree, lot), lots):
                digests += read
                damaged += errors
        found.append(digests)
    if damaged:
        more = f" ({len(damaged)} files in all: {few(damaged[1:])})" if damaged[1:] else ""
        raise SettingsError(f"{damaged[0]}{more}")
    trained = set(found[0])
    return [test.name(number) for number, digest in enumerate(found[1]) if digest in trained]


def _read_lot(tree: ImageTree, lot: Iterable[int]) -> tuple[list[bytes], list[str]]:
    """The hashes of these images, and a sentence for each that cannot be read."""
    digests, errors = [], []
    for number in lot:
        try:
            digests.append(tree.digest(number))
        except SettingsError as error:
            errors.append(str(error))
    return digests, errors


def _noted(notes: Path) -> dict[str, Any]:
    try:
        return dict(read_json(notes / CHECKED))
    except (OSError, ValueError, TypeError):
        return {}
