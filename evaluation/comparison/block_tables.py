"""Tables of trained blocks, as benchmarks/studies/block_table.py writes them, as benchmarks."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blockqnn.cost import Cost
from blockqnn.errors import UserError
from blockqnn.params import settings_from_dict
from blockqnn.reward import reward
from blockqnn.search.outcome import Outcome
from blockqnn.settings import RewardSettings, Settings
from blockqnn.space import Block, Layer, Op, Space
from blockqnn.surrogate import block_features
from evaluation.comparison.cells import read_table_file
from evaluation.comparison.run import About, Score

IMAGES = {
    "digits": (10, 1, 8),
    "fashion-mnist": (10, 1, 28),
    "cifar10": (10, 3, 32),
    "cifar100": (100, 3, 32),
}
"""Classes, channels, and pixels a side of each data set's images."""
WRITER = "benchmarks/studies/block_table.py"
"""The program that writes tables of blocks."""
LARGEST = 5
"""Largest max_index of a space whose blocks can all be listed."""


@dataclass(frozen=True)
class Table:
    """The outcomes of trained blocks, and how they were made."""

    outcomes: dict[str, Outcome]
    """Outcomes by the block's key."""
    provenance: dict[str, str]
    """What the comments at the head of the file say: settings, command, commit and more."""

    def outcome(self, block: Block) -> Outcome:
        """The outcome of a block's network. Raises `KeyError` for one that is not in the table."""
        return self.outcomes[block.key]


def read_block_table(path: Path) -> Table:
    """The table in a file. Raises `UserError` for a file that is none."""
    lines = read_table_file(path).splitlines()
    head = [line[2:].partition(": ") for line in lines if line.startswith("# ")]
    rows = csv.DictReader(line for line in lines if not line.startswith("# "))
    try:
        outcomes = {row["key"]: _outcome(row) for row in rows}
        if not outcomes:
            raise ValueError("there are no rows")
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path} is no table of blocks (line {len(head) + rows.line_num}, "
            f"{type(error).__name__}: {error}): give one that {WRITER} wrote"
        ) from None
    return Table(outcomes, {name: value for name, _, value in head})


def _outcome(row: dict[str, Any]) -> Outcome:
    return Outcome(
        kind=row["outcome"],
        accuracy=float(row["accuracy"]) if row["accuracy"] else None,
        curve=_curve(row.get("curve")),
        restarts=int(row["restarts"]),
        seconds=float(row["seconds"]),
    )


def _curve(text: str | None) -> tuple[dict[str, float], ...]:
    accuracies = map(float, text.split(";")) if text else ()
    return tuple({"epoch": e, "accuracy": a} for e, a in enumerate(accuracies, start=1))


def every_block(space: Space, layers: tuple[Layer, ...] = ()) -> Iterator[Block]:
    """All blocks of a small space that begin with some layers, in the space's order."""
    for layer in space.choices(layers):
        if layer.op == Op.TERMINAL:
            yield Block((*layers, layer))
        else:
            yield from every_block(space, (*layers, layer))


class BlockBenchmark:
    """A table of trained blocks as a benchmark, with the paper's reward (equation 7).

    The density is that of the proposed code, as in a search. Raises `UserError` if the table lacks
    a block of its space or does not say how it was made.
    """

    def __init__(self, table: Table, path: Path) -> None:
        self.table = table
        try:
            made = json.loads(table.provenance["settings"])
            tree = {part: made[part] for part in ("space", "network")}
            self.settings: Settings = settings_from_dict(tree)
            self.data = str(made["data"]["name"])
            self.images = IMAGES[self.data]
            if self.settings.space.max_index > LARGEST:
                raise ValueError(f"space.max_index is above {LARGEST}")
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise UserError(
                f"{path} does not say how its blocks were trained ({type(error).__name__}: "
                f"{error}): give one that {WRITER} wrote"
            ) from None
        self.space = self.settings.space.build()
        try:
            self._scores = {str(block): self._judge(block) for block in every_block(self.space)}
        except (KeyError, ValueError):  # a block is missing, or its network cannot be
            raise UserError(
                f"{path} lacks blocks of its space, or they fit no network of its settings: give "
                f"one that {WRITER} wrote"
            ) from None

    @property
    def about(self) -> About:
        """What a report says. Agents are compared by rewards, which are what they look for."""
        made = self.table.provenance
        return About(
            title=f"Agents on a table of trained blocks, {self.data}",
            text=f"Every block of Space(max_index={self.space.max_index}), by "
            f"{len(self.table.outcomes)} real trainings, those of {made.get('command', '?')}, "
            f"commit {made.get('commit', '?')}. The reward is the paper's, from held-out accuracy, "
            "multiply-accumulates and density; the pick is the evaluated block with the best "
            "reward, its accuracy the held-out one.",
            measure="reward",
            measured="reward of the pick",
            best=max(self._scores.values()).reward,
        )

    def encode(self, block: Block) -> NDArray[np.float64]:
        """The vector that a search gives its surrogate."""
        return block_features(block, self._cost(block))

    def score(self, block: Block) -> Score:
        """The reward and accuracy of a block; those of a block that diverged are chance."""
        return self._scores[str(block)]

    def _judge(self, block: Block) -> Score:
        accuracy = self.table.outcome(block).accuracy
        if accuracy is None:
            chance = 100.0 / self.images[0]
            return Score(chance, chance)
        weights, macs = RewardSettings(), self._cost(block).macs
        paper = {"macs": macs, "density": block.density, "mu": weights.mu, "rho": weights.rho}
        return Score(reward(accuracy, **paper), accuracy)

    def _cost(self, block: Block) -> Cost:
        classes, channels, pixels = self.images
        network = self.settings.network
        return network.cost(block, num_classes=classes, in_channels=channels, image_size=pixels)
