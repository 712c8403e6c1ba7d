"""One attempt of a worker, of whichever kind, at training a candidate."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from blockqnn.data import Dataset
from blockqnn.errors import UserError
from blockqnn.search.candidate import Further, train_candidate
from blockqnn.search.candidate_files import (
    candidate_directory,
    identity,
    keep_outcome,
    kept_outcome,
)
from blockqnn.search.outcome import Outcome
from blockqnn.settings import Settings
from blockqnn.space import Block, Shape
from blockqnn.storage import DirectoryInUse, DirectoryLock, as_search_error
from blockqnn.storage.lock import LOCK_WAIT
from blockqnn.surrogate import StoppingRule
from blockqnn.workers.protocol import Answer, CandidateTask


def answer(train: Callable[[], Outcome]) -> Answer:
    """Train a candidate and say what came of it; errors that nobody foresaw are raised."""
    try:
        return {"outcome": train().to_dict()}
    except DirectoryInUse as error:  # by a worker that was taken for lost and is not
        return {"lost": str(error)}
    except (UserError, OSError) as error:
        return {"error": str(error)}


def train_and_keep(
    task: CandidateTask, settings: Settings, data: Dataset, place: Path, device: torch.device
) -> Outcome:
    """Train a candidate and put its outcome on disk, in its own directory below `place`, which is
    locked.

    An outcome that ran out of memory is not kept unless the candidate was alone on its device.
    Raises `DirectoryInUse`, and `SearchError` when the disk does not take the outcome.
    """
    block, settings, further, rule = read_task(task, settings, place)
    directory = candidate_directory(place, task["number"])
    with as_search_error(directory):
        directory.mkdir(parents=True, exist_ok=True)
        own = identity(block, settings, data.fingerprint, task["rung"])
        lock = DirectoryLock(directory, wait=LOCK_WAIT)
        try:
            outcome = kept_outcome(directory, own)  # of a worker that died before it could answer
            if outcome is None:
                job = (block, settings, data, directory, device)
                outcome = train_candidate(*job, rule=rule, further=further)
                if outcome.out_of_memory and not task["alone"]:
                    return outcome
                keep_outcome(directory, own, outcome)
            (directory / "checkpoint").unlink(missing_ok=True)
            shutil.rmtree(directory / "before", ignore_errors=True)
            return outcome
        finally:
            lock.release()


class Reading(NamedTuple):
    """What a task stands for."""

    block: Block
    settings: Settings
    """With what the candidate's network has of its own."""
    further: Further | None
    """What it goes on from, if it does."""
    rule: StoppingRule | None


def read_task(task: CandidateTask, settings: Settings, place: Path) -> Reading:
    """What a task of a search with these settings stands for; its work lies below `place`."""
    of, rule = task["of"], task["rule"]
    return Reading(
        Block.parse(task["code"], settings.space.max_index),
        settings.shaped(Shape.from_dict(task["shape"])),
        None if of is None else Further(task["rung"], candidate_directory(place, of)),
        None if rule is None else StoppingRule.from_dict(rule),
    )
