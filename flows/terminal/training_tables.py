"""Tables of final trainings and of their networks, the same for the terminal and Prefect."""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.results import Network, compare, cost_in_words, run_of
from flows.terminal.say import clock, print_table

Row = dict[str, Any]


def training_table(results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One row for each training, in the order given.

    Accuracies are in percent after the last epoch, held-out ones where images were held out; MMACs
    are millions for one image; the time is `h:mm:ss`.
    """
    return [_row(result) for result in results]


def network_table(
    results: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]
) -> list[Row]:
    """One row for each network, best first.

    The accuracy on the test images is in percent: its mean and standard deviation over the seeds,
    and the ends of its 95 % interval for so many images. Milliseconds are of the smallest batch.
    """
    return [_network_row(network) for network in _tested(results, evaluations)]


def print_networks(
    results: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]
) -> None:
    """Print the table of networks for a terminal of 80 columns, and whether they cost the same."""
    print_table(network_table(results, evaluations), left=("network", "test"))
    networks = _tested(results, evaluations)
    if len(networks) > 1:
        print(cost_in_words(networks))


def _tested(
    results: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]
) -> list[Network]:
    """The networks that were evaluated, best first."""
    return [n for n in compare(run_of("", results, evaluations)) if n.accuracies]


def outcome_in_words(result: Mapping[str, Any]) -> str:
    """What became of a training, in one line; its accuracy in percent."""
    if result["outcome"] != "trained":
        return f"{result['outcome']}: {result['reason']}"
    row, accuracy = _row(result), ""
    if row["held-out"] is not None:
        accuracy = f"accuracy {row['held-out']:.2f} %, "
    elif row["train"] is not None:
        accuracy = f"train accuracy {row['train']:.2f} %, "
    return f"trained, {accuracy}{row['epochs']} epochs in {row['time']}"


def print_trainings(results: Sequence[Mapping[str, Any]]) -> None:
    """Print the table of trainings for a terminal of 80 columns."""
    print_table(training_table(results), left=("network", "on"))


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


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
