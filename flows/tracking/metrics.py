"""What MLflow draws: curves of one training over its epochs, and of the search over its iterations.

Every point carries the journal's time, so that MLflow takes a point sent twice only once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockqnn.search.history import History
from blockqnn.search.records import Result

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
    predicted = "predicted_" if outcome.kind == "stopped" else ""
    whole = {
        f"{predicted}reward": result.reward,
        "macs": cost.macs,
        "parameters": cost.parameters,
        "density": result.candidate.block.density,
        "seconds": outcome.seconds,
        "restarts": outcome.restarts,
    }
    if outcome.accuracy is not None and not outcome.curve:
        whole["accuracy"] = outcome.accuracy
    if outcome.predicted is not None:
        whole["predicted_accuracy"] = outcome.predicted
    if outcome.latency is not None:
        whole["latency_ms"] = outcome.latency
    return metrics + [Metric(name, float(value), end, 0) for name, value in whole.items()]


def iteration_metrics(history: History, iteration: int) -> list[Metric]:
    """Points of a whole iteration, counted from 0: the paper's figure 8, of what was measured."""
    from mlflow.entities import Metric

    batch = history.settings.batch
    results = history.results[iteration * batch : (iteration + 1) * batch]
    standing = history.standings[iteration]
    accuracies = [r.outcome.accuracy for r in results if r.outcome.accuracy is not None]
    values = {
        "epsilon": results[-1].candidate.epsilon,
        "best_reward": standing.best_reward,
        "distinct_blocks": standing.distinct_blocks,
    }
    if accuracies and standing.best_accuracy is not None:
        values["mean_accuracy"] = sum(accuracies) / len(accuracies)
        values["best_accuracy"] = standing.best_accuracy
    rewards = [r.reward for r in results if r.outcome.kind != "stopped"]
    if rewards:
        values["mean_reward"] = sum(rewards) / len(rewards)
    time = milliseconds(results[-1].time)
    return [Metric(name, float(value), time, iteration) for name, value in values.items()]


def milliseconds(seconds: float) -> int:
    """MLflow's unit of time."""
    return round(seconds * 1000)
