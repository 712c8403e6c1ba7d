"""A search as the report shows it, from its journal or from the small files that outlive it."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from blockqnn.errors import SearchError
from blockqnn.search.history import JOURNAL, History, read_search
from blockqnn.search.outcome import KINDS
from blockqnn.settings import Settings, SpaceSettings
from blockqnn.storage import read_json
from evaluation.candidates.front import Point, on_front, points_of, read_front
from evaluation.candidates.importance import importances
from evaluation.candidates.iterations import Iteration, iterations_of
from evaluation.plots.front import draw_fronts
from evaluation.plots.importance import draw_importances
from evaluation.plots.search import summary_curve
from evaluation.report.picture import Picture, search_picture, wide_plot
from evaluation.stages.doubts import doubts_of
from evaluation.stages.search import BEST, FRONT, SummaryBlock, read_search_summary, summary_block

MATCHED = {
    "macs": "multiply-accumulates",
    "parameters": "parameters",
    "seconds": "training time",
    "latency": "latency",
}
"""What networks may be matched by, in words."""

AGENTS = {
    "q_learning": "Q-learning",
    "dyna_q": "Dyna-Q",
    "random": "Random search",
    "evolution": "Regularised evolution",
}
"""Names of the agents in the report."""
SHOWN = 5
"""Best blocks in the report's table."""


@dataclass(frozen=True)
class Searched:
    """What a search came to: in sentences, as pictures, its best blocks, and its cost."""

    name: str
    sentences: Sequence[str]
    picture: Picture
    best: Sequence[SummaryBlock]
    front: Sequence[Point]
    """The blocks on a Pareto front."""
    front_picture: Picture | None
    importance_picture: Picture | None
    """What goes with accuracy; None where too few were trained, or their journal is not there."""
    trainings: int
    hours: float
    """Device-hours of all trainings."""
    held_out_images: int | None = None


def read_searched(path: Path) -> Searched:
    """What the search in a directory came to, by its journal or by the files of `search --to`.

    Raises `SearchError` when there is none.
    """
    if (path / JOURNAL).exists():
        return searched(read_search(path), path.resolve().name)
    if (path / BEST).exists():
        return _from_summary(path)
    raise SearchError(f"there is no search in {path}: name one with --search, or leave it out")


def searched(history: History, name: str) -> Searched:
    """What a search that is read already came to; the report calls it `name`."""
    points = points_of(history)
    return Searched(
        name,
        list(_in_words(history)),
        search_picture(history, name),
        [summary_block(result) for result in history.best(SHOWN)],
        on_front(points),
        _front_picture(points, "Dots are all that were trained to their end."),
        _importance_picture(history),
        len(history.trainings),
        history.device_hours,
        history.task.held_out_images,
    )


def _front_picture(points: Sequence[Point], dots: str) -> Picture | None:
    if not points:
        return None
    return wide_plot(
        partial(draw_fronts, points),
        "search_front",
        "Held-out accuracy of searched blocks against what they cost, with the Pareto front",
        "On the front is what no other block beats for the same cost or less, as small networks "
        f"trained briefly. {dots}",
    )


def _importance_picture(history: History) -> Picture | None:
    try:
        found = importances(history)
    except SearchError:
        return None
    return wide_plot(
        partial(draw_importances, found),
        "search_importance",
        "What of a network goes with its accuracy in the search",
        f"How much further off predictions of the accuracy of {found.candidates} candidates are "
        "when a property is shuffled among them: what goes with accuracy, which need not be its "
        "cause. Together the properties explain "
        f"{100 * max(0.0, found.explained):.0f} % of its variance.",
    )


def _in_words(history: History) -> Iterator[str]:
    results = history.results
    first = [result for result in results if result.same_as is None]
    kinds = [result.outcome.kind for result in first]
    counts = [f"{kinds.count(k):,} {k}" for k in KINDS if k in kinds]
    epochs, images = history.settings.recipe.epochs, history.settings.recipe.images
    in_epochs = f"{epochs} epoch{'s' * (epochs > 1)}"
    yield (
        f"{AGENTS[history.settings.agent.kind]} over {_blocks_in_words(history.settings.space)} "
        f"on {history.task.data}: {len(results):,} candidates, "
        f"{history.settings.batch} an iteration, {', '.join(counts) or 'none trained'}, "
        f"{len(results) - len(first):,} seen before. Trainings are of {in_epochs} on "
        f"{images or history.task.train_images:,} images, scored on "
        f"{history.task.held_out_images:,} others."
    )
    yield from _further(history)
    yield " ".join(_aims(history.settings))
    yield from doubts_of(history)
    if not history.finished:
        yield f"The search is not finished: {len(results):,} of {history.total:,} candidates."
    iterations = iterations_of(results, history.task.chance)
    if history.settings.agent.kind == "q_learning" and iterations:
        yield from _phases(iterations)


def _further(history: History) -> Iterator[str]:
    """A sentence on the rungs, if there are any."""
    rungs = history.settings.rungs
    if not rungs:
        return
    reached = Counter(candidate.rung for candidate in history.candidates)
    counts = ", ".join(
        f"{reached[number]:,} on rung {number + 1} ({rung.epochs} epochs of "
        f"{rung.images or history.task.train_images:,} images)"
        for number, rung in enumerate(rungs, start=1)
    )
    yield (
        f"The best of each rung were trained further: {counts}. What was trained furthest ranks "
        "first, and by the accuracy that it has there."
    )


def _aims(settings: Settings) -> Iterator[str]:
    """Sentences on the reward, on the budget, and on how latencies were measured."""
    weights, budget, latency = settings.reward, settings.budget, settings.latency
    prices = {
        "multiply-accumulates": weights.mu,
        "density": weights.rho,
        "parameters": weights.parameters,
        "latency": weights.latency,
    }
    weighed = [f"{price:g} for each doubling of {of}" for of, price in prices.items() if price]
    accuracy = weights.metric.replace("_", " ")
    if weights.objective == "paper":
        yield f"The reward is the {accuracy}{' less ' * bool(weighed)}{', '.join(weighed)}."
    else:
        trade_off = weights.trade_off
        traded = {
            "multiply-accumulates": trade_off.macs,
            "parameters": trade_off.parameters,
            "predicted training time": trade_off.seconds,
            "predicted latency": trade_off.latency,
        }
        taken = [
            f"{price:g} % of it above chance for each doubling of the {of} of block plain's network"
            for of, price in traded.items()
            if price
        ]
        yield f"The reward is the {accuracy}{' less ' * bool(taken)}{', '.join(taken)}."
    limits = [
        f"{limit:,g} {what}" if what == "ms" else f"{limit:,} {what}"
        for what, limit in (
            ("multiply-accumulates", budget.macs),
            ("parameters", budget.parameters),
            ("times the multiply-accumulates of block plain", budget.times_plain),
            ("seconds of training, as predicted", budget.seconds),
            ("ms", budget.latency),
        )
        if limit is not None
    ]
    if limits:
        yield f"Blocks beyond the budget were not trained: {', '.join(limits)}."
    if settings.network.match != "none":
        yield (
            "Every block's network has the filters with which it takes as much "
            f"{MATCHED[settings.network.match]} as that of block plain, within 3 %."
        )
    if settings.measures_latency:
        images = f"{latency.batch:,} image{'s' * (latency.batch > 1)}"
        yield (
            f"Latency: the median of {latency.passes:,} passes of {images}, on the device that was "
            "to train the block, beside what else it did."
        )


def _blocks_in_words(space: SpaceSettings) -> str:
    words = f"blocks of up to {space.max_index} layers"
    if space.max_width is not None:
        words += f" and {space.max_width} leaves"
    return words if space.version == "v1" else f"{words} of space {space.version.upper()}"


def _phases(iterations: Sequence[Iteration]) -> Iterator[str]:
    """A sentence that compares the first phase of epsilon with the last."""
    phases = [list(group) for _, group in groupby(iterations, key=lambda i: i.epsilon)]
    if len(phases) < 2:
        return
    means = [
        (
            members[0].epsilon,
            fmean(v for i in members for v in i.first(i.accuracies)),
            fmean(v for i in members for v in i.first(i.rewards)),
        )
        for members in (phases[0], phases[-1])
    ]
    (before, accuracy, reward), (after, later, later_reward) = means
    yield (
        f"Mean accuracy went from {accuracy:.1f} % at epsilon {before:g} to {later:.1f} % at "
        f"epsilon {after:g}, mean reward from {reward:.1f} to {later_reward:.1f}."
    )


def _from_summary(path: Path) -> Searched:
    found = read_search_summary(path / BEST)
    metrics = _metrics(path / "metrics.json")
    rows = _iterations(path / "iterations.csv")
    points = read_front(path / FRONT)
    name = found.search
    trained = int(metrics.get("trained") or 0)
    words = f"A search on {found.data} over {len(rows):,} iterations"
    if trained:
        words += f", {trained:,} distinct blocks trained"
    picture = wide_plot(
        partial(summary_curve, rows),
        "search",
        "Accuracy and reward of the search by iteration",
        "Mean of the iteration and the best so far, by iteration.",
    )
    return Searched(
        name,
        [f"{words}."],
        picture,
        found.blocks[:SHOWN],
        points,
        _front_picture(points, "Blocks that are on none are not drawn."),
        None,
        int(metrics.get("trainings") or trained),
        float(metrics.get("hours") or 0.0),
    )


def _metrics(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
        metrics: dict[str, Any] = content["search"]
        return metrics
    except (OSError, ValueError, KeyError, TypeError):  # two numbers less; the blocks are there
        return {}


def _iterations(path: Path) -> list[dict[str, float]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    except OSError as error:
        raise SearchError(f"cannot read {path} ({error.strerror})") from None
    except (ValueError, TypeError) as error:
        raise SearchError(f"{path} is damaged ({error}): write it again") from None
    return rows
