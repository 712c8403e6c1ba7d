"""What final trainings and their evaluations come to, in small files for plots and metrics of a
pipeline.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from blockqnn.errors import SearchError
from blockqnn.storage import read_json, write_json, write_rows

Record = Mapping[str, Any]

CURVE = ("network", "seed", "epoch", "loss", "train_accuracy", "learning_rate")
NETWORK = ("network", "seeds", "top1", "spread", "ece", "MMACs", "parameters", "hours")


def write_evaluated(results: Sequence[Record], evaluations: Sequence[Record], to: Path) -> None:
    """Write metrics.json, networks.csv and curves.csv of final trainings into `to`.

    `results` are the contents of their result.json, `evaluations` those of the evaluations' files.
    networks.csv has one row a network: accuracy on the test images in percent, mean and standard
    deviation over the seeds, and cost; metrics.json the accuracies and deviations by network;
    curves.csv one row an epoch of every training. Raises OSError when they cannot be written.
    """
    to.mkdir(parents=True, exist_ok=True)
    rows = [_network(label, *found) for label, found in _by_label(results, evaluations).items()]
    write_rows(NETWORK, rows, to / "networks.csv")
    write_rows(CURVE, _curves(results), to / "curves.csv")
    metrics = {name: {row["network"]: row[name] for row in rows} for name in ("top1", "spread")}
    write_json(metrics, to / "metrics.json")


def _by_label(
    results: Iterable[Record], evaluations: Iterable[Record]
) -> dict[str, tuple[list[Record], list[Record]]]:
    """Results and evaluations of each network that was evaluated, in the order of the latter."""
    found: dict[str, tuple[list[Record], list[Record]]] = {}
    for evaluation in evaluations:
        found.setdefault(evaluation["label"], ([], []))[1].append(evaluation)
    for result in results:
        if result["label"] in found:
            found[result["label"]][0].append(result)
    return found


def _network(label: str, results: list[Record], evaluations: list[Record]) -> dict[str, Any]:
    scores = [evaluation["test"]["top1"]["value"] for evaluation in evaluations]
    return {
        "network": label,
        "seeds": len(evaluations),
        "top1": round(fmean(scores), 2),
        "spread": round(stdev(scores), 2) if len(scores) > 1 else None,
        "ece": round(fmean(evaluation["test"]["ece"] for evaluation in evaluations), 2),
        "MMACs": round(evaluations[0]["macs"] / 1e6, 6),
        "parameters": evaluations[0]["parameters"],
        "hours": round(sum(r["seconds"] * r.get("devices", 1) for r in results) / 3600, 4),
    }


def _curves(results: Iterable[Record]) -> list[dict[str, Any]]:
    return [
        {
            "network": result["label"],
            "seed": result["seed"],
            **{name: _rounded(entry.get(name)) for name in CURVE[2:]},
        }
        for result in results
        for entry in result["curve"]
    ]


def _rounded(value: float | None) -> float | None:
    return round(value, 5) if isinstance(value, float) else value


JUDGED = "evaluations.json"

VERSION = 1
"""Of evaluations.json; later versions of this package read it or say that they cannot."""

CLOCKS = ("begun", "finished")
"""Of a result: when it was trained, which says nothing about what was trained."""


def write_judged(
    name: str, results: Sequence[Mapping[str, Any]], evaluations: Sequence[Any], to: Path
) -> None:
    """Write evaluations.json, with all that is known of the final trainings of the run `name`, into
    `to`, and the small files for metrics and plots. Raises OSError.
    """
    write_evaluated(results, evaluations, to)
    content = {
        "version": VERSION,
        "name": name,
        "results": [without_clocks(result) for result in results],
        "evaluations": [without_clocks(evaluation) for evaluation in evaluations],
    }
    write_json(content, to / JUDGED)


def read_judged(to: Path) -> tuple[str, list[Any], list[Any]]:
    """The run's name, its results and its evaluations, from what `write_judged` left.

    Raises `SearchError` for none.
    """
    path = to / JUDGED
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
    return {name: value for name, value in record.items() if name not in CLOCKS}
