"""A command that ends, with everything it started, when the process that wanted it ends.

    python blockqnn/workers/leash.py COMMAND [ARGUMENT...]

Standard input is the leash: whoever starts the guard holds the other end of the pipe and keeps it
open. The kernel closes it when the holder exits, is killed (-9 too) or crashes; the guard then
stops the command and all its descendants, politely first. Prefect needs this: its temporary server
outlives a killed flow, a worker without a server ignores SIGTERM, and a worker's flow runs live in
sessions of their own, out of reach of a signal to the process group.

On Linux descendants that lost their parent are found too (the guard adopts them); elsewhere only
those whose chain of parents still leads to the guard.

The guard imports the standard library only, so that it starts in milliseconds and stays small.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import BinaryIO, NoReturn

GRACE = 4.0
"""Seconds between SIGTERM, which asks a process to end, and SIGKILL, which ends it."""

_PR_SET_CHILD_SUBREAPER = 36


def start(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, log: BinaryIO | int
) -> subprocess.Popen[bytes]:
    """Start `command` under a guard, in a session of its own; its output goes to `log`.

    A Ctrl-C in the terminal does not reach it: the caller ends it, by `let_go`.
    """
    return subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).resolve()), *command],
        env=env,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def let_go(guard: subprocess.Popen[bytes]) -> None:
    """Let go of the leash and wait until the command and all its descendants are gone."""
    assert guard.stdin is not None
    with contextlib.suppress(OSError):
        guard.stdin.close()
    guard.wait()


def descendants(root: int) -> list[int]:
    """Ids of the living processes that descend from the process `root`, the nearest first."""
    children: dict[int, list[int]] = {}
    for pid, parent in _processes():
        children.setdefault(parent, []).append(pid)
    found = list(children.get(root, ()))
    for pid in found:  # grows while it is walked: breadth first
        found.extend(children.get(pid, ()))
    return found


def stop_descendants(grace: float = GRACE) -> None:
    """Ask every descendant of this process to end, and kill those left after `grace` seconds."""
    asked: set[int] = set()
    deadline = time.monotonic() + grace
    while (alive := descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in alive:
            if pid not in asked:
                asked.add(pid)
                _signal(pid, signal.SIGTERM)
        time.sleep(0.05)
    while alive := descendants(os.getpid()):
        for pid in alive:
            _signal(pid, signal.SIGKILL)
        time.sleep(0.05)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _processes() -> list[tuple[int, int]]:
    """The id of every living process, with its parent's."""
    if not sys.platform.startswith("linux"):
        listing = subprocess.run(
            ["ps", "-axo", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
        ).stdout
        rows = [line.split() for line in listing.splitlines()]
        return [(int(pid), int(parent)) for pid, parent, state in rows if state[0] != "Z"]
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended while we looked
                # "pid (name) state parent ...", where the name may hold spaces and brackets.
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state not in "ZX":
                    processes.append((int(entry.name), int(parent)))
    return processes


def _adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies; possible on Linux only."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _on_signal(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _follow_leash() -> None:
    while os.read(0, 1024):  # not sys.stdin: its lock would be held when the interpreter ends
        pass
    stop_descendants()


def main(command: Sequence[str]) -> int:
    """Run `command` until it ends or the leash is let go; return its exit status."""
    _adopt_orphans()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _on_signal)
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        threading.Thread(target=_follow_leash, daemon=True).start()
        return child.wait()
    finally:
        stop_descendants()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
