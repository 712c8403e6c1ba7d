"""What each part of the recipe cifar-strong brings: all parts, all but one, and the 2018 recipe.

    python -m benchmarks.studies.recipe_parts --root data [--epochs 15] [--images 10000] [--seeds 2]

Trains the residual block (filters 16, 32, 64, two a stage) on some images of CIFAR-10 and prints
held-out accuracy in percent, mean over seeds and their spread, and the difference to all parts
together. A short training on few images is not 300 epochs on all: regularisers cost at first.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from statistics import mean, stdev

import torch

from benchmarks import machine
from blockqnn.data import Dataset, MemoryFeed, load
from blockqnn.network import build_network
from blockqnn.params import load_plan
from blockqnn.settings import DataSettings, Recipe
from blockqnn.training.devices import resolve
from blockqnn.training.trainer import Trainer
from blockqnn.zoo import BLOCKS


def variants(epochs: int) -> dict[str, Recipe]:
    """Recipes by name, all of so many epochs."""
    share = epochs / 300
    strong = load_plan(data="cifar10", overrides={"recipe": "cifar-strong"}).recipe
    strong = replace(strong, epochs=epochs, warmup_epochs=max(1, round(5 * share)), ema=0.99)
    old = load_plan(data="cifar10").recipe
    drops = tuple(max(1, round(stone * share)) for stone in old.milestones)
    steps = {"schedule": "multistep", "milestones": drops, "decay": 0.1, "warmup_epochs": 0}
    return {
        "cifar-strong": strong,
        "without cosine": replace(strong, **steps),
        "without cutout": replace(strong, cutout=0),
        "without label smoothing": replace(strong, label_smoothing=0.0),
        "without average of weights": replace(strong, ema=0.0),
        "without dropped paths": replace(strong, drop_path=0.0),
        "cifar-2018": replace(old, epochs=epochs, milestones=drops),
    }


def accuracy(recipe: Recipe, data: Dataset, seed: int, device: torch.device) -> float:
    """Held-out percent after the last epoch."""
    torch.manual_seed(seed)
    network = build_network(
        BLOCKS["residual"],
        filters=(16, 32, 64),
        repeats=2,
        num_classes=10,
        drop_path=recipe.drop_path,
    )
    feed = MemoryFeed(data, recipe, seed, device)
    trainer = Trainer(network=network, recipe=recipe, feed=feed, seed=seed, device=device)
    return trainer.run()[-1]["accuracy"]


def report(root: str, epochs: int, images: int, seeds: int) -> Iterator[str]:
    """The table, line by line as it is measured."""
    device = resolve("auto")
    settings = DataSettings(name="cifar10", root=root, images=images, holdout=0.2)
    data = load(settings, 0).to(device)
    yield f"recipe parts: {machine.describe()}; {images} images, {epochs} epochs, {seeds} seeds"
    yield "| recipe | held-out accuracy % | spread | against cifar-strong |"
    yield "|---|---:|---:|---:|"
    first = None
    for name, recipe in variants(epochs).items():
        scores = [accuracy(recipe, data, seed, device) for seed in range(seeds)]
        first = mean(scores) if first is None else first
        spread = f"{stdev(scores):.2f}" if seeds > 1 else "-"
        yield f"| {name} | {mean(scores):.2f} | {spread} | {mean(scores) - first:+.2f} |"


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", default="data", help="where CIFAR-10 lies")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    for line in report(options.root, options.epochs, options.images, options.seeds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
