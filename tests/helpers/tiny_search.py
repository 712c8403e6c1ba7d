"""The small search that several tests share, and outcomes for those that train nothing."""

import hashlib
import os
import subprocess
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from journals import read_journal

from blockqnn.data import dataset as data
from blockqnn.params import settings_from_dict
from blockqnn.search import Search
from blockqnn.search.journal import without_times
from blockqnn.search.outcome import Outcome

TINY = {
    "batch": 6,
    "schedule": [[1.0, 2], [0.5, 2], [0.0, 1]],
    "space": {"max_index": 4},
    "agent": {"kind": "q_learning", "learning_rate": 0.2, "replay": 8},
    "data": {"name": "digits", "images": 600, "holdout": 0.3},
    "network": {"filters": [8, 12], "repeats": 1},
    "recipe": {"epochs": 3, "batch": 16, "learning_rate": 0.01, "decay_epochs": 2},
    "workers": {"kind": "local", "count": 2},
    "tracking": False,
}


def tiny_settings(**changes):
    """Settings of the tiny search; `recipe={"epochs": 1}` changes one setting of a section."""
    tree = dict(TINY)
    for name, value in changes.items():
        same_kind = isinstance(value, dict) and not {"kind", "name"} & value.keys()
        tree[name] = {**tree.get(name, {}), **value} if same_kind else value
    return settings_from_dict(tree)


def supplied(candidate):
    """An outcome that depends on the block's key alone, now and then a bad one."""
    draw = hashlib.sha256(candidate.key.encode()).digest()
    seconds = float(draw[1])
    if draw[0] < 25:
        return Outcome(
            kind="diverged", reason="the loss was not finite in epoch 1", seconds=seconds
        )
    if draw[0] < 50:
        return Outcome(kind="infeasible", reason="out of memory", seconds=seconds)
    curve = ({"epoch": 1, "loss": 1.0, "accuracy": draw[0] / 2.56, "seconds": seconds},)
    return Outcome(kind="trained", accuracy=draw[0] / 2.56, curve=curve, seconds=seconds)


def journal_of(directory):
    """The records of a search's journal."""
    return read_journal(Path(directory) / "journal.jsonl")[0]


def timeless(directory):
    """The records of a search's journal without what differs between two runs."""
    return without_times(journal_of(directory))


@cache
def cached_load(settings, seed):
    return data.load(settings, seed)


def finish(directory, settings, outcome=supplied, rng=None, most=10**9):
    """Run a search to its end, or for `most` tells, in a random order of those handed out."""
    told = 0
    with Search.open(directory, settings) as search:
        held = []
        while told < most:
            while (candidate := search.ask()) is not None:
                held.append(candidate)
                if rng is not None and search.settings.mode == "async" and len(held) >= 3:
                    break
            if not held:
                assert search.finished
                return search
            candidate = held.pop(rng.randrange(len(held)) if rng else 0)
            search.tell(candidate, outcome(candidate))
            told += 1
        return search


def asked(search):
    """All candidates that are to be had now."""
    return list(iter(search.ask, None))


@contextmanager
def small_disk(place, size):
    """A file system of so many KiB at `place`; skips the test where this user may not mount one."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", place]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
