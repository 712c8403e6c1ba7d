"""Many candidates trained by a process a core; what is done is kept and not done again."""

import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch

from blockqnn.data import Dataset, load
from blockqnn.search.candidate import train_candidate
from blockqnn.search.candidate_files import identity
from blockqnn.search.outcome import Outcome
from blockqnn.settings import DataSettings, Settings
from blockqnn.space import Block
from blockqnn.training.devices import usable_cores
from blockqnn.training.keep_memory import KEEP_MEMORY

KEPT = Path(__file__).parents[2] / "runs" / "tables"
"""Where outcomes lie until their table is written."""


class Training(NamedTuple):
    """One block by the network, recipe and images of the settings; whatever it needs."""

    block: Block
    settings: Settings
    label: str = ""
    """What it is called in a file that is kept."""

    @property
    def identity(self) -> str:
        """A name of all that the outcome depends on."""
        return identity(self.block, self.settings, images(self.settings).fingerprint)


def images(settings: Settings) -> Dataset:
    """The images that the settings name, loaded once."""
    return _load(settings.data, settings.seed)


@cache
def _load(data: DataSettings, seed: int) -> Dataset:
    return load(data, seed)


def train(training: Training) -> Outcome:
    """Train one block in a worker process, by one thread."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        return train_candidate(
            training.block,
            training.settings,
            images(training.settings),
            Path(directory),
            torch.device("cpu"),
        )


def train_many(trainings: Sequence[Training], kept: Path) -> list[Outcome]:
    """Outcomes in order; those in the file `kept` are not trained again."""
    done: dict[str, Outcome] = {}
    if kept.exists():
        content = kept.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:  # a kill tore the last line
            kept.write_bytes(whole)
        for row in map(json.loads, whole.splitlines()):
            done[row["identity"]] = Outcome.from_dict(row["outcome"])
    missing = [training for training in trainings if training.identity not in done]
    os.environ.update(KEEP_MEMORY)  # for the processes that are started now
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (
        kept.open("a") as file,
        ProcessPoolExecutor(usable_cores(), get_context("spawn")) as pool,
    ):
        running = {pool.submit(train, training): training for training in missing}
        for future in as_completed(running):  # at once: a process that is killed ends them all
            training = running[future]
            outcome = done[training.identity] = future.result()
            row = {"identity": training.identity, "outcome": outcome.to_dict()}
            if training.label:
                row = {"label": training.label, **row}
            file.write(json.dumps(row) + "\n")
            file.flush()
    return [done[training.identity] for training in trainings]


def read_kept(path: Path) -> dict[str, Outcome]:
    """The outcomes in a kept file by the labels of their trainings, the latest of each."""
    if not path.exists():
        return {}
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {row["label"]: Outcome.from_dict(row["outcome"]) for row in rows if "label" in row}
