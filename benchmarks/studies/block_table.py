"""Train every network of a small space of blocks: the tables of the tabular benchmarks.

    python -m benchmarks.studies.block_table digits|digits-sample|cifar10 [--data ROOT] [--quick]

Space(max_index=4) has 1,225 codes and 816 distinct blocks, whose networks are 354: a pooling of
kernel 1 passes on what it reads, as an identity does. On CIFAR-10 one block of each network is
trained, of the digits every block (that table is older); `digits-sample` has random blocks of the
demo's larger space, of one network each. Each is trained once by `train_candidate`,
with the network, recipe and images named below, in one process a core with a thread each. The file
begins with lines of provenance. A row has what a search cannot work out from the code: outcome,
held-out accuracy in percent, restarts, seconds, and the held-out accuracy after each epoch; rewards
are computed from it by the formula, with the density of the code that was proposed.
Digits takes some minutes on two cores, CIFAR-10 (official files under ROOT) about an hour; nothing
here depends on the time. What is done is kept under runs/tables: the same command goes on there.
"""

import argparse
import csv
import gzip
import io
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.__main__ import commit
from benchmarks.studies.many_trainings import KEPT, Training, images, train_many
from blockqnn.params import load_settings
from blockqnn.search.outcome import Outcome
from blockqnn.seeds import generator
from blockqnn.settings import Settings
from blockqnn.space import Block, Space
from evaluation.comparison.block_tables import Table, every_block, read_block_table

ROOT = Path(__file__).parents[2]
SPACE = Space(max_index=4)
COLUMNS = ("key", "code", "outcome", "accuracy", "restarts", "seconds", "curve")
COMMON = {"space.max_index": SPACE.max_index, "tracking": False}
COMMON |= {"budget.memory": None, "budget.times_plain": None, "reward.objective": "paper"}
TABLES: dict[str, tuple[str | None, dict[str, Any]]] = {
    "digits": (None, {}),  # as the demo of params.yaml trains its candidates
    "digits-sample": (None, {"space.max_index": 8}),
    "cifar10": (
        "paper-small",
        {"data.holdout": 0.5, "recipe.epochs": 6, "recipe.decay_epochs": 3},
    ),
}
"""The profile with which each table is made, and the settings that differ from it."""
SAMPLED = {"digits-sample": 600}
"""Number of networks in each table that does not have all of its space."""


def place(name: str) -> Path:
    """Where the table of that name is kept."""
    return Path(__file__).parents[1] / "data" / f"{name}-blocks.csv.gz"


def read_table(name: str) -> Table:
    """The table that this script wrote."""
    return read_block_table(place(name))


def table_settings(name: str, data: str | None = None) -> Settings:
    """Those that a table is made with; whatever a block needs, it is trained."""
    profile, changes = TABLES[name]
    where = {} if data is None else {"data.root": data}
    return load_settings(ROOT / "params.yaml", profile, COMMON | changes | where)


def distinct_blocks(space: Space) -> dict[str, Block]:
    """The first code of every network by its key, in the order in which the space lists them."""
    found: dict[str, Block] = {}
    for block in every_block(space):
        found.setdefault(block.key, block)
    return found


def blocks_of(name: str) -> dict[str, Block]:
    """The blocks of a table, one a network, by their keys."""
    if name not in SAMPLED:
        return distinct_blocks(SPACE)
    space, rng = table_settings(name).space.build(), generator(0, "block table", 0)
    found: dict[str, Block] = {}
    while len(found) < SAMPLED[name]:
        block = space.sample(rng)
        found.setdefault(block.key, block)
    return found


def provenance(name: str, root: str | None) -> dict[str, str]:
    """How the table is made; asked before the training, since files may change meanwhile."""
    settings = table_settings(name, root)
    data = images(settings)
    values = settings.to_dict()
    values["data"]["root"] = None  # where they lie on this machine is nobody's business
    used = {part: values[part] for part in ("seed", "space", "data", "network", "recipe")}
    return {
        "command": f"python -m benchmarks.studies.block_table {name}",
        "commit": commit().removeprefix("commit "),
        "machine": machine.describe(),
        "date": time.strftime("%Y-%m-%d"),
        "fingerprint": data.fingerprint,
        "held_out_images": str(len(data.held_out)),
        "settings": json.dumps(used),
    }


def write_table(
    provenance: dict[str, str], blocks: dict[str, Block], outcomes: list[Outcome], path: Path
) -> None:
    """The same rows give the same bytes."""
    text = io.StringIO()
    text.writelines(f"# {name}: {value}\n" for name, value in provenance.items())
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for (key, block), outcome in zip(blocks.items(), outcomes, strict=True):
        accuracy = "" if outcome.accuracy is None else repr(outcome.accuracy)
        spent = f"{outcome.seconds:.3f}"
        curve = ";".join(f"{entry['accuracy']:.2f}" for entry in outcome.curve)
        rows.writerow([key, block, outcome.kind, accuracy, outcome.restarts, spent, curve])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def main() -> None:
    """Train, write, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", nargs="?", default="digits", choices=TABLES)
    parser.add_argument("--data", help="directory of the images")
    parser.add_argument("--quick", action="store_true", help="3 blocks, into nowhere")
    parser.add_argument("--to", type=Path)
    options = parser.parse_args()
    name, root = options.name, options.data
    blocks = blocks_of(name)
    if options.quick:
        blocks = dict(list(blocks.items())[:3])
    print(f"{name} table: {machine.describe()}; {len(blocks)} networks", flush=True)
    head = provenance(name, root)
    settings = table_settings(name, root)
    trainings = [Training(block, settings) for block in blocks.values()]
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as nowhere:
        kept = Path(nowhere) if options.quick else KEPT
        outcomes = train_many(trainings, kept / f"{name}.jsonl")
    seconds = time.perf_counter() - begun
    if not options.quick:
        trained = sum(outcome.seconds for outcome in outcomes)
        head["whole"] = f"{trained:.0f} seconds of training for {len(blocks)} blocks"
        to = options.to or place(name)
        write_table(head, blocks, outcomes, to)
        print(f"written to {os.path.relpath(to)}")
    accuracies = sorted(o.accuracy for o in outcomes if o.accuracy is not None)
    print(
        f"{len(outcomes)} blocks in {seconds:.0f} s, {len(accuracies)} trained, the others "
        f"diverged; accuracy {accuracies[0]:.2f} to "
        f"{accuracies[-1]:.2f} %, median {accuracies[len(accuracies) // 2]:.2f} %"
    )


if __name__ == "__main__":
    main()
