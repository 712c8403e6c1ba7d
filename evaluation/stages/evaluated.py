"""What final trainings and their evaluations come to: evaluations.json, and tables for plots."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from blockqnn.errors import SearchError
from blockqnn.storage import read_json, write_json, write_rows
from blockqnn.training.final.result import TrainingResult

EVALUATED = "evaluations.json"
"""File with all results and evaluations of a run."""

VERSION = 1
"""Format of evaluations.json; later versions of this package read it or say that they cannot."""

CLOCKS = ("begun", "finished")
"""Keys of a result that say when it was trained, and nothing of what was trained."""

CURVE = ("network", "seed", "epoch", "loss", "train_accuracy", "learning_rate")
"""Columns of curves.csv."""

NETWORK = ("network", "seeds", "top1", "spread", "ece", "MMACs", "parameters", "hours")
"""Columns of networks.csv."""

Evaluations = Sequence[Mapping[str, Any]]
"""The contents of evaluations' files."""


def write_judged(
    name: str, results: Sequence[TrainingResult], evaluations: Evaluations, to: Path
) -> None:
    """Write what is known of the final trainings of the run `name` into the directory `to`.

    evaluations.json has all of it. networks.csv has one row a network: accuracy on the test images
    in percent, mean and standard deviation over the seeds, and cost; metrics.json the accuracies
    and deviations by network; curves.csv one row an epoch of every training. Raises OSError.
    """
    to.mkdir(parents=True, exist_ok=True)
    labels = dict.fromkeys(evaluation["label"] for evaluation in evaluations)
    rows = [_network(label, results, evaluations) for label in labels]
    write_rows(NETWORK, rows, to / "networks.csv")
    write_rows(CURVE, _curves(results), to / "curves.csv")
    metrics = {key: {row["network"]: row[key] for row in rows} for key in ("top1", "spread")}
    write_json(metrics, to / "metrics.json")
    content = {
        "version": VERSION,
        "name": name,
        "results": [without_clocks(result) for result in results],
        "evaluations": [without_clocks(evaluation) for evaluation in evaluations],
    }
    write_json(content, to / EVALUATED)


def read_judged(to: Path) -> tuple[str, list[Any], list[Any]]:
    """The run's name, its results and its evaluations, from what `write_judged` left.

    Raises `SearchError` when nothing was left, or it cannot be read.
    """
    path = to / EVALUATED
    try:
        content = read_json(path)
        if content["version"] != VERSION:
            raise SearchError(
                f"{path} has format {content['version']}, this version reads {VERSION}: write it "
                "again with blockqnn evaluate --to"
            )
        return str(content["name"]), list(content["results"]), list(content["evaluations"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SearchError(
            f"{path} does not hold evaluations ({error}): write it with blockqnn evaluate --to"
        ) from None


def without_clocks(record: Mapping[str, Any]) -> dict[str, Any]:
    """A result or an evaluation without the times at which it was made."""
    return {name: value for name, value in record.items() if name not in CLOCKS}


def _network(
    label: str, results: Sequence[TrainingResult], evaluations: Evaluations
) -> dict[str, Any]:
    judged = [evaluation for evaluation in evaluations if evaluation["label"] == label]
    scores = [evaluation["test"]["top1"]["value"] for evaluation in judged]
    spent = [r["seconds"] * r.get("devices", 1) for r in results if r["label"] == label]
    return {
        "network": label,
        "seeds": len(judged),
        "top1": round(fmean(scores), 2),
        "spread": round(stdev(scores), 2) if len(scores) > 1 else None,
        "ece": round(fmean(evaluation["test"]["ece"] for evaluation in judged), 2),
        "MMACs": round(judged[0]["macs"] / 1e6, 6),
        "parameters": judged[0]["parameters"],
        "hours": round(sum(spent) / 3600, 4),
    }


def _curves(results: Sequence[TrainingResult]) -> Iterable[dict[str, Any]]:
    for result in results:
        for entry in result["curve"]:
            values = {name: _rounded(entry.get(name)) for name in CURVE[2:]}
            yield {"network": result["label"], "seed": result["seed"], **values}


def _rounded(value: float | None) -> float | None:
    return round(value, 5) if isinstance(value, float) else value
