"""What a search comes to, in small files for the stages of a pipeline that build on it.

A journal grows and holds times; these say the same whenever the same search is run, measured
latencies aside, so that what depends on them runs again only when another block was found.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import Any

from blockqnn.errors import SearchError
from blockqnn.search.history import History
from blockqnn.search.records import Result
from blockqnn.space import LONGEST, Block
from blockqnn.storage import read_json, write_json, write_rows
from evaluation.front import points_of, write_front
from evaluation.iterations import iterations_of

BEST = "best.json"
FRONT = "front.csv"
VERSION = 1
"""Of best.json; later versions of this package read it or say that they cannot."""
KEPT = 100
"""Best blocks that are kept, as many as the paper trained again."""

CURVE = ("iteration", "epsilon", "mean_accuracy", "best_accuracy", "mean_reward", "best_reward")
"""Columns of iterations.csv."""


@dataclass(frozen=True)
class SummaryBlock:
    """One of a search's best blocks: reward and held-out accuracy in percent, cost of the network
    that the search trained, `macs` multiply-accumulates of one image.
    """

    number: int
    block: Block
    reward: float
    accuracy: float
    macs: int
    parameters: int


@dataclass(frozen=True)
class SearchSummary:
    """The name of a search, the fingerprint of its images, and its best blocks, best first."""

    search: str
    data: str
    fingerprint: str
    blocks: tuple[SummaryBlock, ...]


def write_search(history: History, name: str, to: Path) -> None:
    """Write best.json, metrics.json, iterations.csv and front.csv of a finished search into `to`.

    best.json has the best blocks (`read_search_summary` reads it), metrics.json what the search
    came to, iterations.csv its learning curve, front.csv the blocks that are most accurate for what
    they cost. All but metrics.json are the same for the same journal but for times. Raises OSError
    when they cannot be written.
    """
    to.mkdir(parents=True, exist_ok=True)
    write_rows(CURVE, _curve(history), to / "iterations.csv")
    write_front(points_of(history), to / FRONT)
    write_json(_metrics(history), to / "metrics.json")
    write_json(
        {
            "version": VERSION,
            "search": name,
            "data": history.task.data,
            "fingerprint": history.task.fingerprint,
            "blocks": [
                _row(rank, result) for rank, result in enumerate(history.best(KEPT), start=1)
            ],
        },
        to / BEST,
    )


def read_search_summary(path: Path) -> SearchSummary:
    """The best blocks of a search from a best.json; `SearchError` when it is not one."""
    try:
        content = read_json(path)
        if content["version"] != VERSION:
            raise SearchError(
                f"{path} has format {content['version']}, this version reads {VERSION}: write it "
                "again with blockqnn search --to"
            )
        return SearchSummary(
            content["search"],
            content["data"],
            content["fingerprint"],
            tuple(_block(row) for row in content["blocks"]),
        )
    except OSError as error:
        raise SearchError(
            f"cannot read the best blocks of a search from {path} ({error.strerror}): write them "
            "with blockqnn search --to"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise SearchError(
            f"{path} does not hold the best blocks of a search ({type(error).__name__}: {error}): "
            "write them again with blockqnn search --to"
        ) from None


def _row(rank: int, result: Result) -> dict[str, Any]:
    candidate = result.candidate
    return {
        "rank": rank,
        "number": candidate.number,
        "block": str(candidate.block),
        "reward": result.reward,
        "accuracy": result.outcome.accuracy,
        "macs": result.cost.macs,
        "parameters": result.cost.parameters,
    }


def _block(row: Mapping[str, Any]) -> SummaryBlock:
    return SummaryBlock(
        int(row["number"]),
        Block.parse(row["block"], LONGEST),
        float(row["reward"]),
        float(row["accuracy"]),
        int(row["macs"]),
        int(row["parameters"]),
    )


def _metrics(history: History) -> dict[str, Any]:
    """Best reward and the accuracy of its block, in percent; trainings, of which to the end, and
    hours of all.
    """
    trainings = history.trainings
    best = history.best(1)
    return {
        "search": {
            "reward": round(best[0].reward, 2) if best else None,
            "accuracy": round(best[0].outcome.accuracy or 0.0, 2) if best else None,
            "trained": sum(result.outcome.kind == "trained" for result in trainings),
            "trainings": len(trainings),
            "hours": round(history.device_hours, 4),
        }
    }


def _curve(history: History) -> list[dict[str, Any]]:
    """One row an iteration: means and best so far of accuracy and reward, in percent. Of a stopped
    candidate the mean has what was predicted; the best is of those that were trained.
    """
    iterations = iterations_of(history.results, history.task.chance)
    accuracy = accumulate((i.best(i.accuracies) for i in iterations), max)
    reward = accumulate((i.best(i.rewards) for i in iterations), max)
    return [
        {
            "iteration": i.number,
            "epsilon": i.epsilon,
            "mean_accuracy": round(fmean(i.accuracies), 3),
            "best_accuracy": round(best_accuracy, 3),
            "mean_reward": round(fmean(i.rewards), 3),
            "best_reward": round(best_reward, 3),
        }
        for i, best_accuracy, best_reward in zip(iterations, accuracy, reward, strict=True)
    ]
