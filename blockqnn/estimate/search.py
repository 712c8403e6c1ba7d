"""What a search takes: rehearsed, priced by layer, held against some seconds of real training."""

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median

import numpy as np

from blockqnn.cost import Cost
from blockqnn.data import load
from blockqnn.errors import SearchError
from blockqnn.estimate.memory import MemoryWatch
from blockqnn.estimate.needs import FLOW, JUDGING, Needs
from blockqnn.estimate.rehearsal import PATIENCE, rehearse
from blockqnn.search.costs import Costs
from blockqnn.search.outcome import Outcome
from blockqnn.search.records import Task
from blockqnn.search.rungs import KEPT
from blockqnn.search.search import prices_for
from blockqnn.settings import LocalSettings, RaySettings, Settings, StoppingSettings
from blockqnn.space import Block, Shape, parts_of
from blockqnn.workers.local import LocalWorkers
from blockqnn.workers.open import open_workers
from blockqnn.workers.protocol import WorkerDied, candidate_task

TASTE = 4.0
"""Seconds for which a candidate is trained to see how quick the workers are."""

ROUNDS = 2
"""Candidates of each worker process; in the first round memory is taken and kernels are chosen, of
which long trainings notice nothing."""

ENOUGH = 30.0
"""Seconds after which no further candidate is begun: a long training shows by itself how quick the
workers are."""

HELD_OUT = 0.02
"""Most of the images that judge one of these: large networks would take minutes for it."""

SAMPLED = 60
"""Random designs among which those are that are trained."""

POINT = 170
"""Bytes of an epoch in the journal."""

OVERHEAD = 0.1
"""Seconds of a candidate beside its training: messages, files, weights that are drawn."""

START = 15.0
"""Seconds until the flow, its server and the workers are there."""

MEASURING = 12.0
"""Seconds in which layers are measured here: how quick the workers are is seen by training."""

CALIBRATION = 42.0
"""Seconds in which layers are measured, by a search that needs that."""

PICTURES = 250_000
"""Bytes of the pictures and tables of a search."""

DRAWING = 6_000
"""Bytes of a candidate's drawing in MLflow."""


@dataclass(frozen=True)
class _Taste:
    """What some seconds of the workers' work came to."""

    slower: float
    """Seconds that trainings take beside those predicted."""
    memory: MemoryWatch
    """What the workers took."""
    workers: int
    """How many these were."""


def estimate_search(settings: Settings, patience: float = PATIENCE) -> Needs:
    """What the search takes, from beginning to end, found out in about a minute.

    Nothing of it is kept. Raises `SettingsError` for settings and images that a search would
    refuse too, and `SearchError` for a device that cannot be measured.
    """
    data = load(settings.data, settings.seed)
    task = Task.of(data, settings.reward.metric)
    with tempfile.TemporaryDirectory(prefix="blockqnn-") as scratch:
        together, workers = _workers(settings, Path(scratch) / "workers")
        with MemoryWatch() as measuring:
            prices = prices_for(settings, task, MEASURING)
        costs = Costs(settings, task, prices)
        designs = _typical(settings, costs, together * ROUNDS)
        taste = _taste(settings, workers, task, designs, Path(scratch) / "taste")
        played = rehearse(settings, prices, Path(scratch) / "search", together, patience)
    work = [
        _images(settings, candidate.rung, task) * _seconds_an_image(cost)
        for candidate, cost in played.trained
    ]
    if not work:
        raise SearchError("no block of this space may be trained: raise what budget allows")
    each = taste.slower * fmean(work) + OVERHEAD
    trainings = max(1, round(len(work) / played.share))
    beside = START + (CALIBRATION if settings.needs_prices else 0.0)
    seconds = trainings * each / together + played.proposing / played.share + beside
    parameters = [cost.parameters for _, cost in played.trained]
    epochs = settings.recipe.epochs + sum(rung.epochs for rung in settings.rungs)
    # checkpoints of those in training, and the weights from which further rungs go on
    kept = together * 12 * max(parameters)
    kept += min(KEPT, trainings) * len(settings.rungs) * round(4 * fmean(parameters))
    journal = played.journal / played.share + trainings * POINT * epochs
    measured = measuring.processes if settings.needs_prices else 0
    elsewhere = isinstance(settings.workers, RaySettings) and settings.workers.address is not None
    here = 0 if elsewhere else together // taste.workers
    return Needs(
        trainings=trainings,
        at_a_time=together,
        each=each,
        seconds=seconds,
        memory=FLOW + max(measured, here * taste.memory.processes),
        device_memory=taste.memory.device,
        disk=round(journal) + kept + PICTURES + trainings * DRAWING * settings.tracking,
    )


def _workers(settings: Settings, directory: Path) -> tuple[int, LocalSettings]:
    """How many candidates the search trains at a time, and processes of this machine like its
    workers.
    """
    own = settings.workers
    if isinstance(own, LocalSettings):
        workers = own
    else:
        device, threads = own.typical
        workers = LocalSettings(count=1, devices=(device,), threads=threads)
    directory.mkdir()
    opened = open_workers(settings, directory)
    try:
        return opened.slots, workers
    finally:
        opened.close()


def _seconds_an_image(cost: Cost) -> float:
    assert cost.seconds_an_image is not None
    return cost.seconds_an_image


def _images(settings: Settings, rung: int, task: Task) -> float:
    """Images of a training on a rung: as often as it sees each, and those that judge it."""
    recipe = settings.recipe_of(rung)
    train = recipe.images or task.train_images
    return recipe.epochs * (train + JUDGING * task.held_out_images)


def _typical(settings: Settings, costs: Costs, count: int) -> list[tuple[Block, Shape, Cost]]:
    """So many random designs of the search that may be trained, from the dearest of all to one of
    the middle."""
    rng = np.random.default_rng(0)
    found: dict[str, tuple[Block, Shape, Cost]] = {}
    for _ in range(SAMPLED):
        design = settings.designs.sample(rng)
        block, shape = parts_of(design)
        shape = costs.matched(block, shape)
        cost = costs.of(block, shape)
        if not costs.over_budget(cost):
            found[design.key] = (block, shape, cost)
    ranked = sorted(found.values(), key=lambda each: _seconds_an_image(each[2]))
    if not ranked:
        raise SearchError("no block of this space may be trained: raise what budget allows")
    places = np.linspace(len(ranked) - 1, len(ranked) // 2, count).round().astype(int)
    return [ranked[place] for place in places]


def _taste(
    settings: Settings,
    workers: LocalSettings,
    task: Task,
    designs: Sequence[tuple[Block, Shape, Cost]],
    directory: Path,
) -> _Taste:
    """Train some designs for some seconds each, in all workers at a time."""
    recipe = settings.recipe
    batches = TASTE / (recipe.batch * median(_seconds_an_image(cost) for *_, cost in designs))
    images = min(task.train_images, recipe.batch * max(2, round(batches)))
    short = replace(
        recipe, epochs=1, warmup_epochs=0, images=max(images, task.num_classes), restarts=0
    )
    data = replace(settings.data, holdout=min(settings.data.holdout, HELD_OUT))
    held_out = max(
        task.num_classes, round(data.holdout * (task.train_images + task.held_out_images))
    )
    own = replace(
        settings, data=data, recipe=short, rungs=(), workers=workers, stopping=StoppingSettings()
    )
    directory.mkdir()
    pool = LocalWorkers(own, workers, directory)
    work = images + JUDGING * held_out
    begun = time.monotonic()

    def train(number: int) -> Outcome | None:
        if number >= pool.slots and time.monotonic() - begun > ENOUGH:
            return None
        block, shape, _ = designs[number]
        asked = candidate_task(number, str(block))
        asked["shape"] = shape.to_dict()
        try:
            return pool.train(asked)
        except WorkerDied:
            return None  # of memory, say: the search would go on too

    with closing(pool), MemoryWatch() as memory, ThreadPoolExecutor(pool.slots) as threads:
        outcomes = list(threads.map(train, range(len(designs))))
    ratios = [
        outcome.seconds / (work * _seconds_an_image(cost))
        for outcome, (*_, cost) in zip(outcomes, designs, strict=True)
        if outcome is not None and outcome.curve
    ]
    if not ratios:
        raise SearchError(
            "none of a few blocks could be trained (memory, or budget.latency): mend that, or the "
            "search will train none either"
        )
    return _Taste(median(ratios), memory, pool.slots)
