"""Rehearses a search with made-up accuracies, to see how many trainings it comes to.

The same blocks proposed again, budgets and rungs decide that, and they depend on the agent; so the
search itself is run. Networks that take longer are made up to be more accurate, as they mostly are.
"""

import hashlib
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from blockqnn.cost import Cost, DeviceCost
from blockqnn.search import Search
from blockqnn.search.costs import Costs
from blockqnn.search.outcome import Outcome
from blockqnn.search.records import Candidate
from blockqnn.settings import Settings

PATIENCE = 60.0
"""Seconds after which the rest of a long search is taken to be as what was rehearsed of it."""


@dataclass(frozen=True)
class Rehearsal:
    """What a search came to."""

    trained: Sequence[tuple[Candidate, Cost]]
    """The candidates that were trained, with their costs."""
    share: float
    """How much of the search this was, up to 1."""
    journal: int
    """Bytes of the journal, without learning curves."""
    proposing: float
    """Seconds that the agent took."""


def rehearse(
    settings: Settings, prices: DeviceCost, directory: Path, together: int, patience: float
) -> Rehearsal:
    """Run a search of `together` workers in an empty directory for at most so many seconds."""
    begun = time.monotonic()
    own = replace(settings, tracking=False)
    with Search.open(directory, own, prices=prices) as search:
        costs = Costs(settings, search.task, prices)
        trained: list[tuple[Candidate, Cost]] = []
        waiting: deque[tuple[Candidate, Cost]] = deque()
        while not search.finished and time.monotonic() - begun < patience:
            while len(waiting) < together and (candidate := search.ask()) is not None:
                waiting.append((candidate, costs.of(candidate.block, candidate.shape)))
            if not waiting:
                continue
            candidate, cost = waiting.popleft()
            trained.append((candidate, cost))
            search.tell(candidate, _made_up(candidate, cost, costs.plain, search.task.chance))
        share = len(search.results) / search.total
        journal = (directory / "journal.jsonl").stat().st_size
    return Rehearsal(trained, max(share, 1e-9), journal, time.monotonic() - begun)


def _made_up(candidate: Candidate, cost: Cost, plain: Cost, chance: float) -> Outcome:
    """An outcome of nobody's, the same for the same network."""
    times_plain = (cost.seconds_an_image or 1.0) / (plain.seconds_an_image or 1.0)
    luck = int.from_bytes(hashlib.sha256(candidate.key.encode()).digest()[:4]) / 2**32
    skill = 0.1 + 0.6 * (1 - math.exp(-times_plain)) + 0.1 * luck + 0.05 * candidate.rung
    accuracy = chance + (100 - chance) * min(0.99, skill)
    return Outcome(
        kind="trained", accuracy=accuracy, balanced_accuracy=accuracy, latency=cost.milliseconds
    )
