"""The append-only record of one search: JSON lines, each with a checksum, each on disk before the
next step.

A crash can tear only what was being appended last: such a tail is dropped when the journal is
opened for writing. Damage anywhere else is refused, never repaired silently. The checksum leaves
out the times, so that two journals of the same search are equal but for these.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from blockqnn.errors import SearchError
from blockqnn.files import sync_directory

log = logging.getLogger(__name__)

Record = dict[str, Any]
TIMES = ("time", "seconds")
"""Names whose values differ between two runs of one search, at any depth of a record."""


class Journal:
    """The journal file, open for appending. Only the holder of the search's lock may open it."""

    def __init__(self, path: Path) -> None:
        """Open or create `path`; a torn tail is cut off. Raises `SearchError` and OSError."""
        self.path = path
        self.records, whole = read_journal(path) if path.exists() else ([], 0)
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
        """Add records, on disk when this returns.

        Raises OSError when they do not fit on the disk; the journal is as it was before then.
        """
        records = list(records)
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
        self.records.extend(records)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def read_journal(path: Path) -> tuple[list[Record], int]:
    """The whole records of a journal and the number of bytes they take; a torn tail is left out.

    A crash tears one line at most, the last: `SearchError` for any other damage.
    """
    with path.open("rb") as file:
        lines = file.readlines()
    parsed = [_parse(line) for line in lines]
    if parsed and parsed[-1] is None and (len(lines) > 1 or not lines[0].endswith(b"\n")):
        del parsed[-1], lines[-1]
    records = []
    for number, record in enumerate(parsed, start=1):
        if record is None:
            raise SearchError(
                f"line {number} of {path} is damaged, and not as a crash would have left it; "
                f"nothing was changed. Restore the file from a copy, or go back to the "
                f"{number - 1} lines before it: cp {path} {path}.damaged && "
                f"head -n {number - 1} {path}.damaged > {path}"
            )
        records.append(record)
    return records, sum(map(len, lines))


def without_times(value: Any) -> Any:
    """A record without what differs between two runs of the same search."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list | tuple) else value


def _checksum(record: Record) -> str:
    text = json.dumps(without_times(record), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"{zlib.crc32(text.encode()):08x}"


def _line(record: Record) -> bytes:
    text = json.dumps({**record, "crc": _checksum(record)}, separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n"


def _parse(line: bytes) -> Record | None:
    """The record of a line, None when it is torn or damaged."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
        checksum = record.pop("crc")
        return record if checksum == _checksum(record) else None
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None
