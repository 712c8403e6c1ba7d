"""Writing files so that a crash or a power loss leaves the old one or the new one, never half of
one; and files at URLs, which fsspec (a dependency of torch) reads and writes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


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
    """The value in a JSON file, whoever wrote it; raises OSError, and ValueError for no JSON."""
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


def is_url(place: str) -> bool:
    """Whether a place is a URL, say s3://bucket/x, and not a path."""
    return "://" in place


def write_url(url: str, content: bytes) -> None:
    """Put a file at a URL, directories made as needed; whatever the store raises."""
    import fsspec

    store, path = fsspec.core.url_to_fs(url)
    store.makedirs(store._parent(path), exist_ok=True)
    store.pipe_file(path, content)


def read_url(url: str) -> bytes:
    """The file at a URL; FileNotFoundError, or whatever the store raises."""
    import fsspec

    store, path = fsspec.core.url_to_fs(url)
    content: bytes = store.cat_file(path)
    return content


def remove_url(url: str) -> None:
    """Remove what lies at a URL and below; nothing there is no error."""
    import fsspec

    store, path = fsspec.core.url_to_fs(url)
    with contextlib.suppress(FileNotFoundError):
        store.rm(path, recursive=True)
