"""A long-lived process that trains candidates: `python -m blockqnn.worker`.

It speaks JSON lines and knows only `blockqnn`: no Prefect, no MLflow. The first line on standard
input is `{"settings": {...}, "directory": "runs/x", "device": "cpu", "threads": 1}`; every further
one a candidate, `{"number": 3, "code": "..."}`. It answers `{"ready": true}`, then `{"number": 3,
"outcome": {...}}`, or `{"error": "..."}` for what the user has to mend (a full disk, missing data).
An outcome is on disk before it is answered, so that it survives the death of whoever asked. When
standard input closes, whoever asked is gone, and the worker ends at once, in the middle of a
training too.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

import torch

from blockqnn.candidate import identity, train_candidate
from blockqnn.config import Settings
from blockqnn.data import Dataset, load
from blockqnn.devices import limit_memory, resolve
from blockqnn.errors import UserError
from blockqnn.lock import DirectoryLock
from blockqnn.outcome import Outcome
from blockqnn.params import settings_from_dict
from blockqnn.search import candidate_directory, explained, keep_outcome, kept_outcome
from blockqnn.space import Block

LOCK_WAIT = 60.0
"""Seconds that the worker of a killed search gets to notice that it is alone."""


def main() -> None:
    """Serve standard input until it closes."""
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not end up among the answers
    try:
        begin = json.loads(lines.get())
        settings = settings_from_dict(begin["settings"])
        torch.set_num_threads(begin["threads"])
        device = resolve(begin["device"])
        limit_memory(device, begin.get("share", 1))
        data = load(settings.data, settings.seed).to(device)
        _answer(answers, {"ready": True})
        while True:
            task = json.loads(lines.get())
            block = Block.parse(task["code"], settings.space.max_index)
            directory = candidate_directory(Path(begin["directory"]), task["number"])
            outcome = train_and_keep(block, settings, data, directory, device)
            _answer(answers, {"number": task["number"], "outcome": outcome.to_dict()})
    except (UserError, OSError) as error:
        _answer(answers, {"error": str(error)})


def train_and_keep(
    block: Block, settings: Settings, data: Dataset, directory: Path, device: torch.device
) -> Outcome:
    """Train a candidate and put its outcome on disk, in its own directory, which nobody else may
    use.

    Raises `SearchError` when the disk does not take it.
    """
    with explained(directory):
        directory.mkdir(parents=True, exist_ok=True)
        own = identity(block, settings, data.fingerprint)
        lock = DirectoryLock(directory, wait=LOCK_WAIT)
        try:
            outcome = kept_outcome(directory, own)  # of a worker that died before it could answer
            if outcome is None:
                outcome = train_candidate(block, settings, data, directory, device)
                keep_outcome(directory, own, outcome)
            (directory / "checkpoint").unlink(missing_ok=True)
            return outcome
        finally:
            lock.release()


def _read(lines: queue.Queue[str]) -> None:
    """Pass lines on; the end of input ends the process, whatever its other thread is doing."""
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def _answer(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
