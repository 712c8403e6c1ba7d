"""One attempt of a worker, of whichever kind, at training a candidate."""

from collections.abc import Callable
from pathlib import Path

import torch

from blockqnn.data import Dataset
from blockqnn.errors import UserError
from blockqnn.search.candidate import train_candidate
from blockqnn.search.candidate_files import identity, keep_outcome, kept_outcome
from blockqnn.search.outcome import Outcome
from blockqnn.settings import Settings
from blockqnn.space import Block
from blockqnn.storage import DirectoryInUse, DirectoryLock, as_search_error
from blockqnn.storage.lock import LOCK_WAIT
from blockqnn.surrogate import StoppingRule
from blockqnn.workers.protocol import Answer, Rule


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
) -> Outcome:
    """Train a candidate and put its outcome on disk, in its own `directory`, which is locked.

    An outcome that ran out of memory is not kept unless the candidate was `alone` on its device.
    Raises `DirectoryInUse`, and `SearchError` when the disk does not take the outcome.
    """
    with as_search_error(directory):
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


def read_rule(rule: Rule | None) -> StoppingRule | None:
    """A stopping rule from its plain values; None for no rule."""
    return None if rule is None else StoppingRule.from_dict(rule)
