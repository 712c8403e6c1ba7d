"""Weights and results of final trainings, in files that are the same for the same trainings."""

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from blockqnn.errors import SearchError
from blockqnn.storage import read_json, write_atomically, write_json
from blockqnn.storage.files import sync_directory
from blockqnn.training.final.result import TrainingResult
from evaluation.stages.evaluated import without_clocks
from evaluation.stages.selection import SELECTION, read_selection

RESULTS = "results.json"
"""File with the results of one network's trainings, beside their weights."""

Results = Mapping[Path, TrainingResult]
"""Results of trainings by their directories in the run."""


@dataclass(frozen=True)
class Trained:
    """A final training that has ended."""

    id: str
    """Name of its directory in the run."""
    result: TrainingResult
    weights: Path
    """File of its weights, which a diverged training lacks."""


def write_trained(selection: Path, results: Results, to: Path) -> None:
    """Write the results of a step of `blockqnn train` into the directory `to`.

    They are a copy of the file `selection` if blocks were ranked, and for each network finally
    trained a directory with results.json and seed-<k>.safetensors, which is whole or not there.
    Raises OSError.
    """
    to.mkdir(parents=True, exist_ok=True)
    finals: dict[str, dict[Path, TrainingResult]] = defaultdict(dict)
    for directory, result in results.items():
        if result["split"] == "everything":
            finals[result["label"]][directory] = result
    for label, found in finals.items():
        _write_network(found, to / label)
    if any(result["split"] == "train" for result in results.values()):
        write_json(read_selection(selection), to / SELECTION)


def read_trained(models: Path) -> Iterator[Trained]:
    """The final trainings that `write_trained` left anywhere below a directory.

    Raises `SearchError` when there are none, or they cannot be read.
    """
    paths = sorted(p for p in models.rglob(RESULTS) if p.parent.suffix != ".tmp")  # of a kill
    if not paths:
        raise SearchError(
            f"there are no trained networks below {models}: write them with blockqnn train --to"
        )
    for path in paths:
        try:
            results = read_json(path)
            for result in results:
                if type(result["seed"]) is not int:
                    raise ValueError(f"seed is {result['seed']!r}")
                weights = path.parent / _weights_name(result)
                yield Trained(_plain_name(result.pop("id")), result, weights)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SearchError(
                f"{path} does not hold results of trainings ({error}): write it again with "
                "blockqnn train --to"
            ) from None


def _write_network(results: Results, to: Path) -> None:
    """One network's directory, made aside and renamed."""
    aside = to.with_name(f"{to.name}.{os.getpid()}.tmp")
    for left in to.parent.glob(f"{to.name}.*.tmp"):  # left by a kill
        shutil.rmtree(left, ignore_errors=True)
    aside.mkdir()
    try:
        rows = []
        for directory, result in results.items():
            rows.append({"id": directory.name, **without_clocks(result)})
            if result["outcome"] == "trained":  # a diverged one has no weights
                with (directory / "weights.safetensors").open("rb") as source:
                    copy = partial(shutil.copyfileobj, source)
                    write_atomically(aside / _weights_name(result), copy)
        write_json(rows, aside / RESULTS)
        shutil.rmtree(to, ignore_errors=True)
        aside.rename(to)
        sync_directory(to.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _plain_name(id: str) -> str:
    """The name of a training's directory, after which a file is named: it leads nowhere else."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", id) or id in (".", ".."):
        raise ValueError(f"id is {id!r}")
    return id


def _weights_name(result: TrainingResult) -> str:
    return f"seed-{result['seed']}.safetensors"
