"""Every image of a data set on disk read once, before a training of hours begins."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from blockqnn.data.files.layout import few
from blockqnn.data.streamed.image_tree import ImageTree
from blockqnn.data.streamed.shards import Shards
from blockqnn.data.streamed.stream import ImageStream, open_stream
from blockqnn.errors import SettingsError
from blockqnn.settings import DataSettings
from blockqnn.storage import read_json, write_json

log = logging.getLogger(__name__)

CHECKED = "checked.json"
"""File of the checks that found nothing, by what was checked."""

LOT = 256
"""Images that a thread takes at a time."""


def check_images(settings: DataSettings, notes: Path, threads: int) -> None:
    """Read all images of folders, tar files or shards to their ends, in so many threads.

    Images that are in both sets, and files of other kinds in tar files, are named in the log. What
    was found whole is noted in a file in the directory `notes`, and not read again while no name
    and no size changes. Raises `SettingsError` that names the damaged files.
    """
    stream = open_stream(settings, 0)
    known: dict[str, Any] = _noted(notes)
    checked = f"{Path(settings.root or '').expanduser().resolve()} {stream.fingerprint}"
    if checked in known:
        twins = known[checked]
    else:
        total = len(stream.train) + len(stream.test)
        log.info("%s: each of %s images is read once, to find damaged ones", settings.root, total)
        _say_passed_over(settings.root, stream)
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


def _say_passed_over(root: str | None, stream: ImageStream) -> None:
    """Name the kinds of files in tar files that are no images; of folders it is said earlier."""
    found: Counter[str] = Counter()
    for part in (stream.train, stream.test):
        if isinstance(part, ImageTree) and part.is_tar:
            found.update(part.passed_over())
    if found:
        kinds = few(f"{count} {suffix}" for suffix, count in found.most_common())
        log.warning("%s: files that are no images and are not read: %s", root, kinds)


Lot = Iterable[tuple[str, bytes | str]]
"""Names of images, each with the hash of its bytes or with a sentence on what is wrong with it."""


def _read(train: ImageTree | Shards, test: ImageTree | Shards, threads: int) -> list[str]:
    """The names of test images that are training images too; raises `SettingsError`."""
    damaged: list[str] = []
    trained: set[bytes] = set()
    twins = []
    for part in (train, test):
        for lot in _lots(part, threads):
            for name, found in lot:
                if isinstance(found, str):
                    damaged.append(found)
                elif part is train:
                    trained.add(found)
                elif found in trained:
                    twins.append(name)
    if damaged:
        more = f" ({len(damaged)} files in all: {few(damaged[1:])})" if damaged[1:] else ""
        raise SettingsError(f"{damaged[0]}{more}")
    return twins


def _lots(part: ImageTree | Shards, threads: int) -> Iterator[Lot]:
    """All images of a set, some at a time, in their order."""
    if isinstance(part, Shards):
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(lambda name: list(part.read_whole(name)), part.names)
        return
    lots = [range(first, min(first + LOT, len(part))) for first in range(0, len(part), LOT)]
    with ThreadPoolExecutor(1 if part.is_tar else threads) as pool:
        yield from pool.map(lambda lot: _read_lot(part, lot), lots)


def _read_lot(tree: ImageTree, lot: Iterable[int]) -> Lot:
    found: list[tuple[str, bytes | str]] = []
    for number in lot:
        try:
            found.append((tree.name(number), tree.digest(number)))
        except SettingsError as error:
            found.append((tree.name(number), str(error)))
    return found


def _noted(notes: Path) -> dict[str, Any]:
    try:
        return dict(read_json(notes / CHECKED))
    except (OSError, ValueError, TypeError):
        return {}
