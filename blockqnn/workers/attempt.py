"""One attempt of a worker, of whichever kind, at training a candidate."""

import shutil
from collections.abc import Callable
from pathlib import Path

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
from blockqnn.space import Block
from blockqnn.storage import DirectoryInUse, DirectoryLock, as_search_error
from blockqnn.storage.lock import LOCK_WAIT
from blockqnn.surrogate import StoppingRule
from blockqnn.workers.protocol import Answer, Rule, Work


def answer(train: Callable[[], Outcome]) -> Answer:
    """Train a candidate and say what came of it; errors that nobody foresaw are raised."""
    try:
        return {"outcome": train().to_dict()}
    except DirectoryInUse as error:  # by a worker that was taken for lost and is not
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
    further: Further | None = None,
) -> Outcome:
    """Train a candidate and put its outcome on disk, in its own `directory`, which is locked.

    An outcome that ran out of memory is not kept unless the candidate was `alone` on its device.
    Raises `DirectoryInUse`, and `SearchError` when the disk does not take the outcome.
    """
    with as_search_error(directory):
        directory.mkdir(parents=True, exist_ok=True)
        rung = further.rung if further is not None else 0
        own = identity(block, settings, data.fingerprint, rung)
        lock = DirectoryLock(directory, wait=LOCK_WAIT)
        try:
            outcome = kept_outcome(directory, own)  # of a worker that died before it could answer
            if outcome is None:
                job = (block, settings, data, directory, device)
                outcome = train_candidate(*job, rule=rule, further=further)
                if outcome.out_of_memory and not alone:
                    return outcome
                keep_outcome(directory, own, outcome)
            (directory / "checkpoint").unlink(missing_ok=True)
            shutil.rmtree(directory / "before", ignore_errors=True)
            return outcome
        finally:
            lock.release()


def read_rule(rule: Rule | None) -> StoppingRule | None:
    """A stopping rule from its plain values; None for no rule."""
    return None if rule is None else StoppingRule.from_dict(rule)


def read_work(work: Work, settings: Settings, directory: Path) -> tuple[Settings, Further | None]:
    """The settings of a candidate's own training, and what it goes on from if it does.

    `directory` is that of the search's work.
    """
    filters = None if work["filters"] is None else tuple(work["filters"])
    further = None
    if work["of"] is not None:
        further = Further(work["rung"], candidate_directory(directory, work["of"]))
    return settings.with_filters(filters), further
