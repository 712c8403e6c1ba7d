"""What MLflow draws: curves of one training over its epochs, and of the search over its iterations.

Every point carries the journal's time, so that MLflow takes a point sent twice only once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from blockqnn.history import Result

if TYPE_CHECKING:
    from mlflow.entities import Metric


def child_metrics(result: Result, end: int) -> list[Metric]:
    """Curves, one point an epoch at the time it ended, then the numbers of the whole run."""
    from mlflow.entities import Metric

    outcome, cost = result.outcome, result.cost
    metrics: list[Metric] = []
    time = end - milliseconds(outcome.seconds)
    for point in outcome.curve:
        time += milliseconds(point.get("seconds") or 0.0)
        for name in ("loss", "train_accuracy", "accuracy", "learning_rate"):
            if (value := point.get(name)) is not None:
                metrics.append(Metric(name, value, time, int(point["epoch"])))
    whole = {
        "reward": result.reward,
        "macs": cost.macs,
        "parameters": cost.parameters,
        "density": result.candidate.block.density,
        "seconds": outcome.seconds,
        "restarts": outcome.restarts,
    }
    if outcome.accuracy is not None and not outcome.curve:
        whole["accuracy"] = outcome.accuracy
    return metrics + [Metric(name, float(value), end, 0) for name, value in whole.items()]


def iteration_metrics(results: Sequence[Result], batch: int) -> list[Metric]:
    """Points of the iteration that `results` end with: the paper's figure 8."""
    from mlflow.entities import Metric

    last = results[-batch:]
    accuracies = [r.outcome.accuracy for r in last if r.outcome.accuracy is not None]
    values = {
        "epsilon": last[-1].candidate.epsilon,
        "mean_reward": sum(r.reward for r in last) / batch,
        "best_reward": max(r.reward for r in results),
        "distinct_blocks": sum(r.same_as is None for r in results),
    }
    if accuracies:
        values["mean_accuracy"] = sum(accuracies) / len(accuracies)
        values["best_accuracy"] = max(r.outcome.accuracy or 0.0 for r in results)
    time, step = milliseconds(last[-1].time), len(results) // batch - 1
    return [Metric(name, float(value), time, step) for name, value in values.items()]


def milliseconds(seconds: float) -> int:
    """MLflow's unit of time."""
    return round(seconds * 1000)
