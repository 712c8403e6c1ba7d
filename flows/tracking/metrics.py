"""What MLflow draws: curves of one training over its epochs, and of the search over its iterations.

Every point carries the journal's time, so that MLflow takes a point sent twice only once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from blockqnn.search.history import History
from blockqnn.search.records import Result

if TYPE_CHECKING:
    from mlflow.entities import Metric

CURVES = ("loss", "train_accuracy", "accuracy", "learning_rate")
"""Entries of a search's curve that become metrics in MLflow."""

SYSTEM = {
    "images_per_second": ("images_per_second", 1.0),
    "cores": ("system/cpu_cores_busy", 1.0),
    "memory": ("system/process_memory_megabytes", 1e-6),
    "device_memory": ("system/gpu_memory_megabytes", 1e-6),
}
"""What only a final training's curve has: names in MLflow, most of them among its system metrics,
and what the values are multiplied by.
"""


def child_metrics(result: Result, end: int) -> list[Metric]:
    """Metrics of one training of a search, which ended at `end` (milliseconds since 1970): its
    curves, then the numbers of the whole training.
    """
    outcome, cost = result.outcome, result.cost
    curves = curve_metrics(outcome.curve, end - milliseconds(outcome.seconds))
    predicted = "predicted_" if outcome.kind == "stopped" else ""
    whole = {
        f"{predicted}reward": result.reward,
        "macs": cost.macs,
        "parameters": cost.parameters,
        "density": result.candidate.block.density,
        "seconds": outcome.seconds,
        "restarts": outcome.restarts,
        "accuracy": None if outcome.curve else outcome.accuracy,
        "balanced_accuracy": outcome.balanced_accuracy,
        "predicted_accuracy": outcome.predicted,
        "latency_ms": outcome.latency,
    }
    return [*chain.from_iterable(curves), *points(whole, end)]


def iteration_metrics(history: History, iteration: int) -> list[Metric]:
    """Metrics of a whole iteration, counted from 0: the paper's figure 8, of measured blocks."""
    batch = history.settings.batch
    results = history.results[iteration * batch : (iteration + 1) * batch]
    standing = history.standings[iteration]
    first = [r for r in results if not r.candidate.rung] or results
    accuracies = [r.outcome.accuracy for r in first if r.outcome.accuracy is not None]
    values = {
        "epsilon": results[-1].candidate.epsilon,
        "best_reward": standing.best_reward,
        "distinct_blocks": standing.distinct_blocks,
        "mean_accuracy": _mean(accuracies),
        "best_accuracy": standing.best_accuracy if accuracies else None,
        "mean_reward": _mean([r.reward for r in first if r.outcome.kind != "stopped"]),
    }
    return points(values, milliseconds(results[-1].time), iteration)


def curve_metrics(
    curve: Sequence[Mapping[str, float]], begun: int, *, final: bool = False
) -> list[list[Metric]]:
    """Points of each epoch of a training's curve, at the end of the epoch.

    When the training began (milliseconds since 1970) and the seconds of its epochs make the times,
    so that they are the same whenever they are made. Of a `final` training, what its process took
    is among them.
    """
    metrics = []
    seconds = 0.0
    for entry in curve:
        seconds += entry.get("seconds") or 0.0
        values = {name: entry.get(name) for name in CURVES}
        for own, (name, factor) in SYSTEM.items() if final else ():
            values[name] = factor * entry[own] if own in entry else None
        metrics.append(points(values, begun + milliseconds(seconds), int(entry["epoch"])))
    return metrics


def points(values: Mapping[str, float | None], time: int, step: int = 0) -> list[Metric]:
    """One point of each metric at `time` (milliseconds since 1970); none for None, nan and inf."""
    from mlflow.entities import Metric

    return [
        Metric(name, float(value), time, step)
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    ]


def milliseconds(seconds: float) -> int:
    """Seconds in MLflow's unit of time."""
    return round(seconds * 1000)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
