"""Files that a crash leaves old or new, locks of directories, and files at URLs.

It imports nothing of the package but its errors, and everything above may import it.
"""

from blockqnn.storage.files import (
    as_json,
    as_search_error,
    read_json,
    write_atomically,
    write_json,
    write_rows,
    write_text,
)
from blockqnn.storage.lock import DirectoryInUse, DirectoryLock, is_held

__all__ = ["DirectoryInUse", "DirectoryLock", "as_json", "as_search_error", "read_json"]
__all__ += ["is_held", "write_atomically", "write_json", "write_rows", "write_text"]
