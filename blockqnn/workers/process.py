"""What trains candidates on this machine: a long-lived process, `python -m blockqnn.workers.process`.

It knows only `blockqnn`: no Prefect, no MLflow. It speaks JSON lines. The first on
standard input is `{"settings": {...}, "directory": "runs/x", "device": "cpu", "threads": 1}`; every
further one a candidate, `{"number": 3, "code": "...", "alone": false, "rule": null}`, the rule that
of `blockqnn.search.stopping`. It answers `{"ready": true}`, then `{"outcome": {...}}`, `{"lost": "..."}`
for an attempt that came to nothing, or `{"error": "..."}` for what the user has to mend (a full
disk, missing data). An outcome is on disk before it is answered, so that it survives the death of
whoever asked. When standard input closes, whoever asked is gone, and the worker ends at once, in
the middle of a training too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from blockqnn.search.candidate import identity, train_candidate
from blockqnn.settings.search import Settings
from blockqnn.data.dataset import Dataset, load
from blockqnn.training.devices import limit_memory, resolve
from blockqnn.errors import UserError
from blockqnn.workers.lines import served
from blockqnn.storage.lock import DirectoryInUse, DirectoryLock
from blockqnn.search.outcome import Outcome
from blockqnn.params import settings_from_dict
from blockqnn.search.search import candidate_directory, explained, keep_outcome, kept_outcome
from blockqnn.space.spaces import Block
from blockqnn.search.stopping import StoppingRule

LOCK_WAIT = 60.0
"""Seconds that the worker of a killed search gets to notice that it is alone."""


def main() -> None:
    """Serve standard input until it closes."""
    messages, send = served()
    begin = messages.get()
    try:
        settings = settings_from_dict(begin["settings"])
        torch.set_num_threads(begin["threads"])
        device = resolve(begin["device"])
        limit_memory(device, begin.get("share", 1))
        data = load(settings.data, settings.seed).to(device)
    except (UserError, OSError) as error:
        send({"error": str(error)})
        return
    send({"ready": True})
    while True:
        task = messages.get()
        block = Block.parse(task["code"], settings.space.max_index)
        directory = candidate_directory(Path(begin["directory"]), task["number"])
        train = partial(train_and_keep, alone=task["alone"], rule=read_rule(task))
        send(answer(partial(train, block, settings, data, directory, device)))


def answer(train: Callable[[], Outcome]) -> dict[str, Any]:
    """What a worker says of an attempt; other errors are its end, or its attempt's."""
    try:
        return {"outcome": train().to_dict()}
    except DirectoryInUse as error:  # of another worker that was taken for lost and is not
        return {"lost": str(error)}
    except (UserError, OSError) as error:
        return {"error": str(error)}


def train_and_keep(
    block: Block,
    settings: Settings,
    data: Dataset,
    directory: Path,
    device: torch.device,
    *,
    alone: bool = True,
    rule: StoppingRule | None = None,
) -> Outcome:
    """Train a candidate and put its outcome on disk, in its own directory, which nobody else may
    use.

    Running out of memory is no outcome yet unless it was `alone` on its device. Raises
    `DirectoryInUse`, and `SearchError` when the disk does not take the outcome.
    """
    with explained(directory):
        directory.mkdir(parents=True, exist_ok=True)
        own = identity(block, settings, data.fingerprint)
        lock = DirectoryLock(directory, wait=LOCK_WAIT)
        try:
            outcome = kept_outcome(directory, own)  # of a worker that died before it could answer
            if outcome is None:
                outcome = train_candidate(block, settings, data, directory, device, rule=rule)
                if outcome.out_of_memory and not alone:
                    return outcome
                keep_outcome(directory, own, outcome)
            (directory / "checkpoint").unlink(missing_ok=True)
            return outcome
        finally:
            lock.release()


def read_rule(task: Mapping[str, Any]) -> StoppingRule | None:
    """The stopping rule of a candidate, if it has one."""
    rule = task.get("rule")
    return None if rule is None else StoppingRule.from_dict(rule)


def candidate_url(place: str, number: int) -> str:
    """Where the work on a candidate lies below a URL."""
    return f"{place.rstrip('/')}/candidates/{number:06d}"


if __name__ == "__main__":
    main()
