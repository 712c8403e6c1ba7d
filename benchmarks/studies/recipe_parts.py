"""What each part of a recipe brings in a short training: a ladder from the 2018 recipe to Muon.

    python -m benchmarks.studies.recipe_parts [--data ROOT] [--quick] [--to DIR]

Blocks residual and S are trained on all training images of CIFAR-10 but a tenth, which is held out,
for ten epochs, by one thread each, with two seeds. Each step of the ladder keeps those before it;
what was tried on top of the last one changes that alone. With --data (the official files under
ROOT) what is missing is trained, some hours on two cores, and kept in
benchmarks/data/cifar10-recipes.jsonl, where the same command goes on. Either way recipes.md gets
the table between its marks; what is said around it is kept.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import machine
from benchmarks.studies.many_trainings import Training, read_kept, train_many
from benchmarks.studies.pages import RESULTS, put
from blockqnn.params import settings_from_dict
from blockqnn.search.outcome import Outcome
from blockqnn.settings import Settings
from blockqnn.zoo import BLOCKS

KEPT = Path(__file__).parents[1] / "data" / "cifar10-recipes.jsonl"
NETWORKS = {"residual": [16, 32, 64], "S": [8, 16, 32]}
"""Blocks and their filters."""
SEEDS = 2
EPOCHS = 10
FIRST: dict[str, Any] = {
    "epochs": EPOCHS,
    "batch": 128,
    "optimizer": "momentum",
    "learning_rate": 0.1,
    "schedule": "multistep",
    "milestones": [EPOCHS // 2, EPOCHS * 3 // 4],
    "decay": 0.1,
    "weight_decay": 0.0005,
    "crop": 4,
    "flip": True,
}
"""`cifar-2018`, its two drops of the learning rate at the same shares of the epochs."""
LINEAR = {"schedule": "linear", "milestones": [], "optimizer": "sgd", "warmup_epochs": 1}
MUON = {"optimizer": "nmuon", "learning_rate": 0.03, "weight_decay": 0.01, "decay_all": False}
LADDER: dict[str, dict[str, Any]] = {
    "cifar-2018": {},
    "+ cosine instead of steps": {"schedule": "cosine", "milestones": []},
    "+ linear fall after one epoch of warm-up, Nesterov": {**LINEAR, "decay": 0.2},
    "+ crops by 2 pixels instead of 4": {"crop": 2},
    "+ Muon": {**MUON, "warmup_learning_rate": 0.001},
}
"""Changes, each on top of those before."""
TRIED: dict[str, dict[str, Any]] = {
    "batches of 64": {"batch": 64},
    "batches of 256": {"batch": 256, "learning_rate": 0.04},
    "label smoothing of 0.1": {"label_smoothing": 0.1},
    "average of weights, 0.995": {"ema": 0.995},
    "weight decay of 0.05": {"weight_decay": 0.05},
    "learning rate of 0.015": {"learning_rate": 0.015},
    "learning rate of 0.06": {"learning_rate": 0.06},
}
"""Changes of the last step, each by itself."""


def recipes() -> dict[str, dict[str, Any]]:
    """All recipes by the name of what is new in them."""
    found: dict[str, dict[str, Any]] = {}
    now = FIRST
    for name, changes in LADDER.items():
        now = {**now, **changes}
        found[name] = now
    return found | {f"and {name}": {**now, **changes} for name, changes in TRIED.items()}


def settings_of(recipe: dict[str, Any], filters: list[int], seed: int, root: str) -> Settings:
    """The settings with which one network is trained."""
    return settings_from_dict(
        {
            "seed": seed,
            "data": {"name": "cifar10", "root": root, "holdout": 0.1},
            "network": {"filters": filters, "repeats": 1},
            "recipe": recipe,
            "reward": {"objective": "accuracy"},
        }
    )


def table(outcomes: dict[tuple[str, str], list[Outcome]]) -> Iterator[str]:
    """A row a recipe: of each network the mean accuracy, what it gained, and its seconds."""
    names = list(recipes())
    heads = [f"{block}: accuracy % | gained | seconds" for block in NETWORKS]
    yield f"| recipe | {' | '.join(heads)} |"
    yield "|---|" + "---:|" * 3 * len(NETWORKS)
    for place, name in enumerate(names):
        cells = []
        before = names[place - 1] if 0 < place < len(LADDER) else list(LADDER)[-1]
        for block in NETWORKS:
            found, base = outcomes.get((name, block)), outcomes.get((before, block))
            if not found:
                cells += ["", "", ""]
                continue
            mean = fmean(o.accuracy or 0.0 for o in found)
            each = "" if len(found) < 2 else f" ({', '.join(f'{o.accuracy:.1f}' for o in found)})"
            gained = ""
            if base and place:
                gained = f"{mean - fmean(o.accuracy or 0.0 for o in base):+.2f}"
            cells += [f"{mean:.2f}{each}", gained, f"{fmean(o.seconds for o in found):.0f}"]
        yield f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="directory with CIFAR-10; trains what is missing")
    parser.add_argument("--quick", action="store_true", help="one epoch of digits, into nowhere")
    parser.add_argument("--to", type=Path, default=RESULTS)
    options = parser.parse_args()
    wanted = [
        (name, block, seed) for seed in range(SEEDS) for name in recipes() for block in NETWORKS
    ]
    root = options.data or "data"
    trainings = {
        (name, block, seed): Training(
            BLOCKS[block],
            settings_of(recipes()[name], NETWORKS[block], seed, root),
            f"{name} | {block} | {seed}",
        )
        for name, block, seed in wanted
    }
    if options.quick:
        with tempfile.TemporaryDirectory() as nowhere:
            changes = {"name": "digits", "holdout": 0.3}
            short = recipes()["+ Muon"] | {"epochs": 3}
            tree = settings_of(short, [8, 16], 0, "data").to_dict() | {"data": changes}
            (outcome,) = train_many(
                [Training(BLOCKS["plain"], settings_from_dict(tree))], Path(nowhere) / "kept"
            )
        print(f"recipe parts: {machine.describe()}; {outcome.accuracy:.1f} % of digits")
        return
    if options.data:
        train_many(list(trainings.values()), KEPT)
    kept = read_kept(KEPT)
    outcomes: dict[tuple[str, str], list[Outcome]] = {}
    for (name, block, _), training in trainings.items():
        if training.label in kept:
            outcomes.setdefault((name, block), []).append(kept[training.label])
    lines = list(table(outcomes))
    put(options.to / "recipes.md", "recipes", "\n".join([machine.describe(), "", *lines]))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
