"""The append-only record of one search: JSON lines, each with a checksum, each on disk before the
next step.

A crash can tear only what was being appended last: such a tail is dropped when the journal is
opened for writing. Damage anywhere else is refused, never repaired silently. The checksum leaves
out the times, so that two journals of the same search are equal but for these.
"""

import json
import logging
import os
import shlex
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from blockqnn.errors import SearchError
from blockqnn.storage.files import sync_directory

log = logging.getLogger(__name__)

Record = dict[str, Any]
TIMES = ("time", "seconds")
"""Names of values that differ between two runs of one search, at any depth of a record."""


class Journal:
    """The journal file, open for appending. Only the holder of the search's lock may open it.

    Records are handed on and not kept: a journal of a million candidates takes no memory here.
    """

    def __init__(self, path: Path, take: Callable[[Record], object] = lambda _: None) -> None:
        """Open or create `path`, give `take` each of its records in order, and cut off a torn tail.

        Raises `SearchError`, OSError and what `take` raises; nothing is changed then.
        """
        self.path = path
        whole = 0
        if path.exists():
            for record, end in whole_records(path):
                whole = end
                take(record)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            torn = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, whole)
            if torn:
                kept = path.with_suffix(".torn")
                kept.write_bytes(torn)
                log.warning("%s ended in a torn line; it was cut off and kept in %s", path, kept)
            os.ftruncate(self._descriptor, whole)
            os.lseek(self._descriptor, whole, os.SEEK_SET)
            os.fsync(self._descriptor)
            sync_directory(path.parent)
        except OSError:
            os.close(self._descriptor)
            raise

    def append(self, records: Iterable[Record]) -> None:
        """Add records, which are on disk when this returns.

        Raises OSError when they do not fit on the disk; the journal stays as it was.
        """
        data = b"".join(_line(record) for record in records)
        end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        try:
            written = 0
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, end)
            os.lseek(self._descriptor, end, os.SEEK_SET)
            raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def whole_records(path: Path) -> Iterator[tuple[Record, int]]:
    """Each whole record of a journal, with the number of bytes up to its end.

    A crash tears the last line at most, which is left out. Raises `SearchError` for other damage.
    What is written after this began to read is not seen.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        end = 0
        for number, line in enumerate(file, start=1):
            line = line[: size - end]
            if not line:  # written since
                return
            end += len(line)
            record = _parse(line)
            if record is not None:
                yield record, end
            elif end == size and (number > 1 or not line.endswith(b"\n")):
                return
            else:
                whole, damaged = shlex.quote(str(path)), shlex.quote(f"{path}.damaged")
                raise SearchError(
                    f"line {number} of {path} is damaged, and not as a crash would have left it; "
                    f"nothing was changed. Restore the file from a copy, or go back to the "
                    f"{number - 1} lines before it: cp {whole} {damaged} && "
                    f"head -n {number - 1} {damaged} > {whole}"
                )


def without_times(value: Any) -> Any:
    """A record without the times, which differ between two runs of the same search."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list | tuple) else value


_plain = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_sorted = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def _checksum(record: Record) -> str:
    return f"{zlib.crc32(_sorted(without_times(record)).encode()):08x}"


def _line(record: Record) -> bytes:
    return _plain({**record, "crc": _checksum(record)}).encode() + b"\n"


def _parse(line: bytes) -> Record | None:
    """The record of a line, None when the line is torn or damaged."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
        checksum = record.pop("crc")
        return record if checksum == _checksum(record) else None
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None
