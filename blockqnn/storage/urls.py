"""Small files at URLs such as s3://bucket/name, through fsspec, a dependency of torch.

Errors are what fsspec's file systems raise.
"""

import contextlib
from typing import Any


def is_url(place: str) -> bool:
    """Say whether a place is a URL such as s3://bucket/x, and not a path."""
    return "://" in place


def write_url(url: str, content: bytes) -> None:
    """Put a file at a URL and make the directories above it."""
    store, path = _store(url)
    store.makedirs(store._parent(path), exist_ok=True)
    store.pipe_file(path, content)


def read_url(url: str) -> bytes:
    """Return the content of the file at a URL. Raises FileNotFoundError where there is none."""
    store, path = _store(url)
    content: bytes = store.cat_file(path)
    return content


def remove_url(url: str) -> None:
    """Remove what lies at a URL and below it; nothing there is no error."""
    store, path = _store(url)
    with contextlib.suppress(FileNotFoundError):
        store.rm(path, recursive=True)


def _store(url: str) -> Any:
    import fsspec  # here, as only few need it

    return fsspec.core.url_to_fs(url)
