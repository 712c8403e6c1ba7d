"""A search with simulated workers: real proposals, rewards and journal, no training, no waiting.

The clock is virtual. A training takes as long as its network's multiply-accumulates say, times
noise; the next event is the earliest end, as it would be for real workers that are never late.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from blockqnn.search import Search
from blockqnn.search.outcome import Outcome
from blockqnn.search.search import Candidate
from blockqnn.seeds import generator

NOISE = 0.3
"""Standard deviation of the logarithm of a training's time, for equal networks."""
STRAGGLERS = 0.01
"""Share of trainings that land on a slow or busy worker."""
SLOWDOWN = (3.0, 10.0)
"""Range from which a slow worker's factor on the training's time is drawn, uniformly."""
IMAGES_PER_SECOND = 50_000.0
"""Speed of a network of 10 million multiply-accumulates; others' is in proportion."""


def training_seconds(search: Search, candidate: Candidate) -> float:
    """A candidate's training time, drawn from (seed, number), so equal in every run and order."""
    task, network = search.task, search.settings.network
    cost = network.cost(
        candidate.block,
        num_classes=task.num_classes,
        in_channels=task.in_channels,
        image_size=task.image_size,
    )
    rng = generator(search.settings.seed, "simulated time", candidate.number)
    images = task.train_images * search.settings.recipe.epochs
    seconds = images * cost.macs / 1e7 / IMAGES_PER_SECOND * rng.lognormal(0.0, NOISE)
    return float(seconds * (rng.uniform(*SLOWDOWN) if rng.random() < STRAGGLERS else 1.0))


@dataclass
class Trace:
    """What the slots did, in virtual seconds."""

    slots: int
    seconds: list[float] = field(default_factory=list)
    """Virtual seconds of each training, in order of its end."""
    spans: list[tuple[float, int]] = field(default_factory=list)
    """Pairs of virtual seconds and the number of candidates in flight meanwhile, in order."""
    drained: int | None = None
    """Index of the first of `spans` after the last proposal, when no block is left to begin."""

    @property
    def utilisation(self) -> float:
        """Percent of the slots' time that was used, from the first begin to the last end."""
        return _percent(self.spans, self.slots)

    @property
    def utilisation_before_drain(self) -> float:
        """Percent of the slots' time that was used up to the last proposal."""
        return _percent(self.spans[: self.drained], self.slots)

    def always_full(self) -> bool:
        """Whether as many were in flight as there are slots, at every moment before the drain."""
        return all(count == self.slots for _, count in self.spans[: self.drained])


def _percent(spans: list[tuple[float, int]], slots: int) -> float:
    time = np.array([seconds for seconds, _ in spans])
    busy = np.array([count for _, count in spans])
    return float(100 * (time * busy).sum() / (slots * time.sum()))


def simulate(search: Search, slots: int, outcome: Callable[[Candidate, float], Outcome]) -> Trace:
    """Run a search to its end as the flow does: ask while a slot is free, take the next to end."""
    trace = Trace(slots)
    now = 0.0
    running: list[tuple[float, int, float, Candidate]] = []
    while not search.finished:
        while len(running) < slots and (candidate := search.ask()) is not None:
            seconds = training_seconds(search, candidate)
            heapq.heappush(running, (now + seconds, candidate.number, seconds, candidate))
        if (
            trace.drained is None
            and len(search.candidates) == search.total
            and len(running) < slots
        ):
            trace.drained = len(trace.spans)
        if running:
            end, _, seconds, candidate = heapq.heappop(running)
            trace.spans.append((end - now, len(running) + 1))
            trace.seconds.append(seconds)
            now = end
            search.tell(candidate, outcome(candidate, seconds))
    return trace
