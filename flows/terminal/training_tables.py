"""The table of a run's final trainings, the same for the terminal and Prefect."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from evaluation.results import Network, compare, run_of
from flows.terminal.say import clock

Row = dict[str, Any]


def training_table(results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One row a training, in the order given: accuracies in percent after the last epoch, held-out
    ones where images were held out; MMACs in millions for one image; time as h:mm:ss.
    """
    return [_row(result) for result in results]


def network_table(
    results: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]
) -> list[Row]:
    """One row a network, best first: accuracy on the test images in percent, mean and standard
    deviation over the seeds, ± the 95 % interval that so many images leave open; milliseconds of
    the smallest batch.
    """
    networks = compare(run_of("", results, evaluations))
    return [_network_row(network) for network in networks if network.accuracies]


def print_networks(rows: Sequence[Row]) -> None:
    """The table of networks, for a terminal of 80 columns."""
    _print(rows, left=("network", "test"))


def outcome_in_words(result: Mapping[str, Any]) -> str:
    """What became of a training, in one line."""
    row = _row(result)
    if result["outcome"] != "trained":
        return f"{result['outcome']}: {result['reason']}"
    held_out, trained = row["held-out"], row["train"]
    words = [f"accuracy {held_out:.2f} %"] if held_out is not None else []
    words += [f"train accuracy {trained:.2f} %"] if trained is not None and not words else []
    return ", ".join(["trained", *words, f"{row['epochs']} epochs in {row['time']}"])


def print_trainings(results: Sequence[Mapping[str, Any]]) -> None:
    """The table, for a terminal of 80 columns."""
    _print(training_table(results), left=("network", "on"))


def _print(rows: Sequence[Row], left: Sequence[str]) -> None:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in rows[0] if rows else ():
        table.add_column(column, justify="left" if column in left else "right")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    Console().print(table)


def _network_row(network: Network) -> Row:
    low, high = network.interval or (None, None)
    first = network.speed[0] if network.speed else {}
    return {
        "network": network.label,
        "seeds": len(network.accuracies),
        "test": _rounded(network.accuracy),
        "spread": _rounded(network.std),
        "low": _rounded(low),
        "high": _rounded(high),
        "ECE": _rounded(network.ece),
        "parameters": network.parameters,
        "MMACs": round(network.macs / 1e6, 2),
        f"ms/{first.get('batch', 1)}": _rounded(network.latency),
    }


def _row(result: Mapping[str, Any]) -> Row:
    last = result["curve"][-1] if result["curve"] else {}
    trained = result["outcome"] == "trained"
    return {
        "network": result["label"],
        "on": {"train": "train", "everything": "all"}[result["split"]],
        "seed": result["seed"],
        "epochs": len(result["curve"]),
        "loss": round(last["loss"], 4) if trained and "loss" in last else result["outcome"],
        "train": _rounded(last.get("train_accuracy")) if trained else None,
        "held-out": _rounded(result["accuracy"]),
        "parameters": result["parameters"],
        "MMACs": round(result["macs"] / 1e6, 2),
        "time": clock(result["seconds"]),
    }


def _rounded(accuracy: float | None) -> float | None:
    return None if accuracy is None else round(accuracy, 2)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
