"""Tables of really trained blocks, as benchmarks/block_table.py writes them, as tasks."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
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
from blockqnn.space import WIRES, Block, Layer, Op, Space
from blockqnn.surrogate import block_features
from evaluation.comparison.cells import read_table_file
from evaluation.comparison.run import About, Score

IMAGES = {
    "digits": (10, 1, 8),
    "fashion-mnist": (10, 1, 28),
    "cifar10": (10, 3, 32),
    "cifar100": (100, 3, 32),
}
"""Classes, channels, and pixels a side."""
LARGEST = 5
"""Index of a space that can be gone through whole."""


@dataclass(frozen=True)
class Table:
    """Outcomes by the block's key, and how they were made."""

    outcomes: dict[str, Outcome]
    provenance: dict[str, str]

    def outcome(self, block: Block) -> Outcome:
        """Of the block, or of one with the same network."""
        return self.outcomes.get(block.key) or self.outcomes[without_wires(block).key]


def read_block_table(path: Path) -> Table:
    """The table in a file; raises `UserError` for one that cannot be read."""
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
            f"{type(error).__name__}: {error}): give one that benchmarks/block_table.py wrote"
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


def without_wires(block: Block) -> Block:
    """The block with identities for all layers that compute nothing: poolings of kernel 1 too."""
    identity = {"op": Op.IDENTITY, "kernel": 0}
    return Block(
        tuple(
            layer._replace(**identity) if layer[1:3] in WIRES else layer for layer in block.layers
        )
    )


def every_block(space: Space, layers: tuple[Layer, ...] = ()) -> Iterator[Block]:
    """Every code of a space, in the order in which it lists them: for small spaces."""
    for layer in space.choices(layers):
        if layer.op == Op.TERMINAL:
            yield Block((*layers, layer))
        else:
            yield from every_block(space, (*layers, layer))


class BlockTask:
    """A table of blocks as a task of `evaluation.comparison.run`, with the paper's reward.

    The density is that of the code that was proposed, as in a search. Raises `UserError` where the
    table lacks a block or does not say how it was made.
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
                f"{error}): give one that benchmarks/block_table.py wrote"
            ) from None
        self.space = self.settings.space.build()
        self._known: dict[str, Score] = {}
        try:
            every = [self.score(block) for block in every_block(self.space)]
        except (KeyError, ValueError):  # a block is missing, or its network cannot be
            raise UserError(
                f"{path} lacks blocks of its space, or they fit no network of its settings: give "
                "one that benchmarks/block_table.py wrote"
            ) from None
        self._best = max(every)

    @cached_property
    def subject(self) -> About:
        """Rewards are what agents are compared by: accuracy alone is not what they look for."""
        made = self.table.provenance
        return About(
            title=f"Agents on a table of trained blocks, {self.data}",
            about=f"Every block of Space(max_index={self.space.max_index}), by "
            f"{len(self.table.outcomes)} real trainings, those of {made.get('command', '?')}, "
            f"commit {made.get('commit', '?')}. The reward is the paper's, from held-out accuracy, "
            "multiply-accumulates and density; the pick is the evaluated block with the best "
            "reward, its accuracy the held-out one.",
            measure="reward",
            measured="reward of the pick",
            best=self._best.reward,
        )

    def encode(self, block: Block) -> NDArray[np.float64]:
        """What the surrogate of a search is given."""
        return block_features(block, self._cost(block))

    def score(self, block: Block) -> Score:
        """The reward by the formula; chance for a block that diverged."""
        code = str(block)
        if code not in self._known:
            accuracy = self.table.outcome(block).accuracy
            chance = 100.0 / self.images[0]
            self._known[code] = Score(chance, chance)
            if accuracy is not None:
                weights = RewardSettings()
                self._known[code] = Score(
                    reward(
                        accuracy,
                        macs=self._cost(block).macs,
                        density=block.density,
                        mu=weights.mu,
                        rho=weights.rho,
                    ),
                    accuracy,
                )
        return self._known[code]

    def _cost(self, block: Block) -> Cost:
        classes, channels, pixels = self.images
        network = self.settings.network
        return network.cost(block, num_classes=classes, in_channels=channels, image_size=pixels)
