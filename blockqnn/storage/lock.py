"""One writer for a directory: a lock that the kernel drops when its holder dies."""

import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from blockqnn.errors import SearchError

LOCK_WAIT = 60.0
"""Seconds to wait for a directory while a process whose flow was killed saves its state."""


class DirectoryInUse(SearchError):
    """A directory cannot be written in, since another process holds its lock."""


class DirectoryLock:
    """Holds `directory/lock` until `release`; raises `DirectoryInUse` with its holder's name.

    On a shared file system the lock works between hosts where the file system supports flock.
    """

    def __init__(self, directory: Path, *, wait: float = 0.0) -> None:
        """Take the lock, trying for `wait` seconds."""
        self._descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        give_up = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    holder = _describe(os.pread(self._descriptor, 4096, 0))
                    os.close(self._descriptor)
                    raise DirectoryInUse(
                        f"{directory} is in use by {holder}; wait for it, stop it, or use another "
                        "name"
                    ) from None
                time.sleep(0.05)
        me = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
        with suppress(OSError):  # on a full disk the lock still holds, but cannot say by whom
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(me).encode(), 0)

    def release(self) -> None:
        """Give the directory to the next process."""
        os.close(self._descriptor)


def is_held(directory: Path) -> bool:
    """Whether a process holds the directory's lock, be it on another host with the file system.

    Where its holder is known to be dead, the lock is not touched: one who takes it at that moment
    shall not meet it.
    """
    try:
        holder = json.loads((directory / "lock").read_text())
        if holder["host"] == socket.gethostname():
            os.kill(holder["pid"], 0)
        DirectoryLock(directory).release()
    except DirectoryInUse:
        return True
    except (OSError, ValueError, LookupError, TypeError, OverflowError):
        pass
    return False


def _describe(content: bytes) -> str:
    try:
        holder = json.loads(content)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
        return f"process {holder['pid']} on {holder['host']} since {since}"
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError, OSError):
        return "another process"
