"""A guarded command ends with everything it started when its holder does, however that ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from blockqnn.workers import leash

CHECKOUT = Path(__file__).parents[2]

# Ignores SIGTERM, like a Prefect worker without a server, and starts a child in another session.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                         start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""
# The same, whose child has lost its parent when the guard looks for it.
ORPHAN = STUBBORN.replace("time.sleep(600)\n", "")

HOLDER = """
import sys, time
from blockqnn.workers import leash
guarded = leash.start([sys.executable, "-c", sys.argv[1]], log=sys.stdout.fileno())
print(guarded.pid, flush=True)
time.sleep(600)
"""


def is_alive(pid):
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def all_end(pids, seconds=20):
    deadline = time.monotonic() + seconds
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(is_alive, pids))


def start(program):
    """A guard of a program, and the pids of both and of the program's child."""
    read, write = os.pipe()
    guarded = leash.start([sys.executable, "-c", program], log=write)
    os.close(write)
    with os.fdopen(read) as output:
        child = int(output.readline())
    return guarded, [guarded.pid, *leash.descendants(guarded.pid), child]


def test_stopping_ends_a_command_that_refuses_and_its_child_in_another_session():
    guarded, pids = start(STUBBORN)
    assert all(map(is_alive, pids))
    leash.let_go(guarded)
    assert all_end(pids, 1)


def test_a_killed_holder_takes_everything_along():
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, STUBBORN], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )
    numbers = [int(holder.stdout.readline()) for _ in range(2)]
    pids = [*numbers, *leash.descendants(holder.pid)]
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert all_end(pids)


def test_what_a_command_leaves_behind_ends_with_it():
    guarded, pids = start(ORPHAN)
    assert guarded.wait() == 0
    guarded.stdin.close()
    assert all_end(pids, 1)


def test_the_status_is_the_commands():
    guarded = leash.start([sys.executable, "-c", "raise SystemExit(7)"], log=subprocess.DEVNULL)
    assert guarded.wait() == 7
    guarded.stdin.close()
