"""The summary of a search, in small files for the stages of a pipeline that build on it.

A journal grows and holds times. A summary is the same whenever the same search is run, measured
latencies aside, so that later stages run again only when another block was found.
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
from blockqnn.space import LONGEST, Block, Shape
from blockqnn.storage import read_json, write_json, write_rows
from evaluation.candidates.front import points_of, write_front
from evaluation.candidates.iterations import iterations_of

BEST = "best.json"
"""File of the best blocks."""

FRONT = "front.csv"
"""File of the blocks that are most accurate for their cost."""

VERSION = 1
"""Format of best.json; later versions of this package read it or say that they cannot."""

KEPT = 100
"""Number of best blocks in a summary: as many as the paper trained again."""

CURVE = ("iteration", "epsilon", "mean_accuracy", "best_accuracy", "mean_reward", "best_reward")
"""Columns of iterations.csv."""


@dataclass(frozen=True)
class SummaryBlock:
    """One of a search's best blocks."""

    number: int
    """Number of its candidate."""
    block: Block
    shape: Shape
    """What was chosen of the shape of its network."""
    reward: float
    accuracy: float
    """Held-out accuracy in percent."""
    macs: int
    """Multiply-accumulates of one image in the network that the search trained."""
    parameters: int
    """Weights of that network."""


@dataclass(frozen=True)
class SearchSummary:
    """The content of best.json."""

    search: str
    """Name of the search."""
    data: str
    """Name of the data set."""
    fingerprint: str
    """Hash of the images and their split."""
    blocks: tuple[SummaryBlock, ...]
    """The best blocks, best first."""


def write_search(history: History, name: str, to: Path) -> None:
    """Write the summary of a finished search into the directory `to`.

    best.json has the best blocks, metrics.json what the search came to, iterations.csv its learning
    curve, front.csv the blocks that are most accurate for their cost. All but metrics.json are the
    same for the same journal but for times. Raises OSError.
    """
    to.mkdir(parents=True, exist_ok=True)
    write_rows(CURVE, _curve(history), to / "iterations.csv")
    write_front(points_of(history), to / FRONT)
    write_json(_metrics(history), to / "metrics.json")
    content = {
        "version": VERSION,
        "search": name,
        "data": history.task.data,
        "fingerprint": history.task.fingerprint,
        "blocks": [
            {"rank": rank, **_row(summary_block(result))}
            for rank, result in enumerate(history.best(KEPT), start=1)
        ],
    }
    write_json(content, to / BEST)


def summary_block(result: Result) -> SummaryBlock:
    """What a summary says of one of the best blocks, which was trained to its end."""
    return SummaryBlock(
        number=result.candidate.number,
        block=result.candidate.block,
        shape=result.candidate.shape.chosen,
        reward=result.reward,
        accuracy=result.outcome.accuracy or 0.0,
        macs=result.cost.macs,
        parameters=result.cost.parameters,
    )


def read_search_summary(path: Path) -> SearchSummary:
    """The content of a best.json; raises `SearchError` when the file is none."""
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


def _row(best: SummaryBlock) -> dict[str, Any]:
    """A block as it stands in the file: without a shape where none was chosen."""
    row = {**vars(best), "block": str(best.block), "shape": str(best.shape)}
    return {name: value for name, value in row.items() if value != ""}


def _block(row: Mapping[str, Any]) -> SummaryBlock:
    return SummaryBlock(
        number=int(row["number"]),
        block=Block.parse(row["block"], LONGEST),
        shape=Shape.parse(row.get("shape", "")),
        reward=float(row["reward"]),
        accuracy=float(row["accuracy"]),
        macs=int(row["macs"]),
        parameters=int(row["parameters"]),
    )


def _metrics(history: History) -> dict[str, Any]:
    """Reward and accuracy of the best block in percent, trainings begun and ended, and hours."""
    best = history.best(1)
    kinds = [result.outcome.kind for result in history.trainings]
    return {
        "search": {
            "reward": round(best[0].reward, 2) if best else None,
            "accuracy": round(best[0].outcome.accuracy or 0.0, 2) if best else None,
            "trained": kinds.count("trained"),
            "trainings": len(kinds),
            "hours": round(history.device_hours, 4),
        }
    }


def _curve(history: History) -> list[dict[str, Any]]:
    """One row an iteration: means and best so far of accuracy and reward, in percent.

    The means count a stopped candidate as it was predicted; the best ones were trained.
    """
    iterations = iterations_of(history.results, history.task.chance)
    accuracy = accumulate((i.best(i.accuracies) for i in iterations), max)
    reward = accumulate((i.best(i.rewards) for i in iterations), max)
    return [
        {
            "iteration": i.number,
            "epsilon": i.epsilon,
            "mean_accuracy": round(fmean(i.first(i.accuracies)), 3),
            "best_accuracy": round(best_accuracy, 3),
            "mean_reward": round(fmean(i.first(i.rewards)), 3),
            "best_reward": round(best_reward, 3),
        }
        for i, best_accuracy, best_reward in zip(iterations, accuracy, reward, strict=True)
    ]
