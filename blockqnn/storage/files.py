"""Writing so that a crash or a power loss leaves the old file or the new one, never half of one."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from blockqnn.errors import SearchError


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk, then rename it to `path`.

    Raises OSError when the disk is full or the directory is not writable; `path` is untouched then
    and no temporary file is left.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def read_json(path: Path) -> Any:
    """Return the value in a JSON file. Raises OSError, and ValueError for what is no JSON."""
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def sync_directory(directory: Path) -> None:
    """Flush a directory's entries to disk, so that a file created or renamed in it stays."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def as_search_error(directory: Path) -> Iterator[None]:
    """Turn an OSError of writing in `directory` into a `SearchError` with a remedy."""
    try:
        yield
    except OSError as error:
        raise SearchError(
            f"cannot write in {directory} ({error.strerror}): free some space or mend the "
            "permissions, then start the same search again; nothing that was recorded is lost"
        ) from error


def write_text(text: str, to: Path) -> None:
    """Write a text to a file as UTF-8. Raises OSError."""
    write_atomically(to, lambda file: file.write(text.encode()))


def as_json(value: Any) -> str:
    """Plain values as JSON for people, keys in the order given."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(value: Any, to: Path) -> None:
    """Write plain values to a file as JSON. Raises OSError."""
    write_text(as_json(value), to)


def write_rows(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], to: Path) -> None:
    """Write rows to a file as CSV; None is an empty cell. Raises OSError."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(text.getvalue(), to)
