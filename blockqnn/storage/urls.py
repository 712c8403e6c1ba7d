"""Small files at URLs such as s3://bucket/name, written and read through fsspec."""

import contextlib


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
