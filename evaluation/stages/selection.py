"""selection.json: a search's best blocks, ranked on held-out images, and the winner."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from blockqnn.errors import SearchError
from blockqnn.space import LONGEST, Block, Shape, design_of
from blockqnn.storage import read_json, write_json
from blockqnn.training.final.result import TrainingResult

SELECTION = "selection.json"
"""File of the ranking and the winner."""

VERSION = 1
"""Format of selection.json; later versions of this package read it or say that they cannot."""

WINNER = "winner"
"""Label of the network of the block that won."""


@dataclass(frozen=True)
class Contender:
    """One of a search's best blocks, to be ranked."""

    number: int
    """Number of its candidate in the search."""
    block: Block
    shape: Shape
    """What was chosen of the shape of its network."""
    directories: tuple[Path, ...]
    """Directories of its trainings, one a seed."""


def write_selection(
    directory: Path,
    search: str,
    contenders: Sequence[Contender],
    results: Mapping[Path, TrainingResult],
) -> dict[str, Any]:
    """Rank the contenders by accuracy on held-out images, the mean of their seeds; write and return
    selection.json.

    One of which a training diverged ranks last and cannot win; of equals the search's better one
    comes first. Raises `SearchError` when all diverged, and OSError.
    """
    rows = [
        _row(contender, [results[directory] for directory in contender.directories])
        for contender in contenders
    ]
    rows.sort(key=lambda row: -1.0 if row["accuracy"] is None else row["accuracy"], reverse=True)
    ranking = [{"rank": rank, **row} for rank, row in enumerate(rows, start=1)]
    best = ranking[0]
    if best["accuracy"] is None:
        reasons = [results[directory]["reason"] for directory in contenders[0].directories]
        reason = next(filter(None, reasons), "")
        raise SearchError(
            f"none of the {len(contenders)} best blocks of search {search} can be trained "
            f"({reason}): lower recipe.learning_rate, or choose another recipe"
        )
    selection = {
        "version": VERSION,
        "search": search,
        "ranking": ranking,
        "winner": {
            key: best[key] for key in ("block", "shape", "accuracy", "number") if key in best
        },
    }
    write_json(selection, directory / SELECTION)
    return selection


def read_selection(path: Path) -> dict[str, Any]:
    """The content of a selection.json; raises `SearchError` when there is none to be read."""
    try:
        selection: dict[str, Any] = read_json(path)
        if selection["version"] != VERSION:
            raise SearchError(
                f"{path} has format {selection['version']}, this version reads {VERSION}: select "
                "again with blockqnn train --step selection"
            )
        winner_of(selection)
        return selection
    except OSError as error:
        raise SearchError(
            f"no winner has been selected, there is no {path} ({error.strerror}): run blockqnn "
            "train --step selection first, or name a selection.json with --winner"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise SearchError(
            f"{path} does not hold a selection ({type(error).__name__}: {error}): delete it and "
            "select again with blockqnn train --step selection"
        ) from None


def winner_of(selection: Mapping[str, Any]) -> tuple[Block, Shape]:
    """The block that won, and what was chosen of the shape of its network."""
    winner = selection["winner"]
    return Block.parse(winner["block"], LONGEST), Shape.parse(winner.get("shape", ""))


def winner_code(selection: Mapping[str, Any]) -> str:
    """The winner as it is written: the code of the block, and what was chosen of the shape."""
    return str(design_of(*winner_of(selection)))


def _row(contender: Contender, results: Sequence[TrainingResult]) -> dict[str, Any]:
    first = results[0]
    accuracies = [result["accuracy"] for result in results]
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    row = {
        "label": first["label"],
        "number": contender.number,
        "block": str(contender.block),
        **({"shape": str(contender.shape)} if str(contender.shape) else {}),
        "key": design_of(contender.block, contender.shape).key,
        "accuracy": fmean(known) if len(known) == len(accuracies) else None,
        **{name: first[name] for name in ("parameters", "macs")},
        "seconds": sum(result["seconds"] for result in results),
        "devices": first.get("devices") or 1,
        "id": contender.directories[0].name,
    }
    return {**row, "accuracies": accuracies} if len(results) > 1 else row
