"""Which short training ranks blocks as a longer one does: the evidence for profile `fast`.

    python -m benchmarks.proxies [--data ROOT] [--quick] [--to DIR]

Random blocks of profile `fast` are trained on CIFAR-10 in every way of `PROXIES`, and longer, as
`LONGER` says. With --data (the official files under ROOT) all of that is done, some three hours on
two cores, and the table of it written to benchmarks/data; what is done is kept under runs/tables,
and the same command goes on there. Without, the table that is there is read. Either way
proxies.csv, proxies.png and the tables of proxies.md between its marks are written; what is said
around them is kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

from benchmarks.many_trainings import KEPT, Training, train_many
from blockqnn.block import Block
from blockqnn.candidate import over_budget
from blockqnn.config import Settings
from blockqnn.cost import Cost, network_cost
from blockqnn.params import load_settings
from blockqnn.seeds import generator

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).parent / "data" / "cifar10-proxies.csv.gz"
COLUMNS = ("code", "training", "outcome", "accuracy", "restarts", "seconds", "curve")
BLOCKS = 64


class Way(NamedTuple):
    """How a block is trained: epochs, images trained on, filters of the first stage, blocks a
    stage; judged on so many held-out images.
    """

    epochs: int = 4
    images: int = 4000
    filters: int = 8
    repeats: int = 1
    held_out: int = 1000

    @property
    def name(self) -> str:
        """What the tables call it."""
        return f"e{self.epochs} i{self.images} f{self.filters} n{self.repeats}"


LONGER = Way(epochs=10, images=5000, filters=16, held_out=4000)
PROXIES = (
    Way(),
    Way(epochs=2),
    Way(epochs=1),
    Way(images=2000),
    Way(images=1000),
    Way(images=1000, epochs=8),
    Way(images=2000, filters=4),
    Way(images=2000, filters=16),
    Way(images=2000, epochs=2, repeats=2),
)
"""The first is what profile `fast` did before this was measured."""


def settings_of(way: Way, data: str | None) -> Settings:
    """Profile `fast` but for the way."""
    where = {} if data is None else {"data.root": data}
    changes = {
        "data.images": way.images + way.held_out,
        "data.holdout": way.held_out / (way.images + way.held_out),
        "network.filters": [way.filters, 2 * way.filters, 4 * way.filters],
        "network.repeats": way.repeats,
        "recipe.epochs": way.epochs,
        "recipe.decay_epochs": 4 if way is LONGER else max(1, way.epochs // 2),
        "stopping.worse": 0.0,
        "budget.memory": None,
        "tracking": False,
    }
    return load_settings(ROOT / "params.yaml", "fast", changes | where)


def cost_of(block: Block, settings: Settings) -> Cost:
    """Of the network on CIFAR-10."""
    network = settings.network
    return network_cost(
        block,
        filters=network.filters,
        repeats=network.repeats,
        num_classes=10,
        in_channels=3,
        image_size=32,
        skeleton=network.skeleton,
        connections=network.connections,
    )


def drawn(count: int) -> list[Block]:
    """Random distinct blocks that the profile's budget allows, and the longer training's network
    too.
    """
    profile = load_settings(ROOT / "params.yaml", "fast")
    larger = settings_of(LONGER, None)
    space = profile.space.build()
    rng = generator(0, "proxies", 0)
    found: dict[str, Block] = {}
    while len(found) < count:
        block = space.sample(rng)
        costs = [cost_of(block, settings) for settings in (profile, larger)]
        if not any(over_budget(cost, profile.budget, profile.recipe) for cost in costs):
            found.setdefault(block.key, block)
    return list(found.values())


def main() -> None:
    """Train what is missing if there are images, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="directory of the images: train what is missing")
    options = parser.parse_args()
    blocks = drawn(BLOCKS)
    ways = (LONGER, *PROXIES)
    # Block by block, so that what is done at any time is whole blocks.
    trainings = [
        Training(block, settings_of(way, options.data)) for block in blocks for way in ways
    ]
    train_many(trainings, KEPT / "proxies.jsonl")


if __name__ == "__main__":
    main()
