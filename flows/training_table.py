"""The table of a run's final trainings, the same for the terminal and Prefect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.progress import clock

Row = dict[str, Any]


def training_table(results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One row a training, in the order given: accuracies in percent after the last epoch, held-out
    ones where images were held out; MMACs in millions for one image; time as h:mm:ss.
    """
    return [_row(result) for result in results]


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
    table = Table(box=None, padding=(0, 1, 0, 0))
    rows = training_table(results)
    for column in rows[0] if rows else ():
        table.add_column(column, justify="left" if column in ("network", "on") else "right")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    Console().print(table)


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
