"""Train every distinct block of a small space on the digits: the table of the tabular benchmarks.

    python -m benchmarks.digits_table [--quick] [--to FILE]

Space(max_index=4) has 1,225 codes and 816 distinct blocks. Each is trained once, as the demo of
params.yaml trains its candidates (network, recipe, data and seed; by `train_candidate`, in two
processes with a thread each). The file begins with lines of provenance. A row has what a search
cannot work out from the code: outcome, held-out accuracy in percent, restarts, seconds; rewards are
computed from it by the formula, with the density of the code that was proposed.
Takes some minutes on two cores; nothing here depends on the time.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks import machine
from benchmarks.__main__ import commit
from blockqnn.candidate import train_candidate
from blockqnn.config import Settings
from blockqnn.data import Dataset, load
from blockqnn.outcome import Outcome
from blockqnn.params import load_settings
from blockqnn.space import Block, Layer, Op, Space

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).parent / "data" / "digits-blocks.csv.gz"
SPACE = Space(max_index=4)
COLUMNS = ("key", "code", "outcome", "accuracy", "restarts", "seconds")


@dataclass(frozen=True)
class Table:
    """Outcomes by the block's key, and how they were made."""

    outcomes: dict[str, Outcome]
    provenance: dict[str, str]


def read_table(path: Path = TABLE) -> Table:
    """The table that this script wrote."""
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    head = [line[2:].partition(": ") for line in lines if line.startswith("# ")]
    rows = csv.DictReader(line for line in lines if not line.startswith("# "))
    outcomes = {
        row["key"]: Outcome(
            kind=row["outcome"],  # type: ignore[arg-type]  # Outcome checks it
            accuracy=float(row["accuracy"]) if row["accuracy"] else None,
            restarts=int(row["restarts"]),
            seconds=float(row["seconds"]),
        )
        for row in rows
    }
    return Table(outcomes, {name: value for name, _, value in head})


def table_settings() -> Settings:
    """The demo's, in the table's space; whatever a block needs, it is trained."""
    changes = {"space.max_index": SPACE.max_index, "budget.memory": None, "tracking": False}
    return load_settings(ROOT / "params.yaml", None, changes)


def distinct_blocks(space: Space) -> list[Block]:
    """The first code of every graph, in the order in which the space lists them."""
    found: dict[str, Block] = {}
    for block in _codes(space, ()):
        found.setdefault(block.key, block)
    return list(found.values())


def _codes(space: Space, layers: tuple[Layer, ...]) -> Iterator[Block]:
    for layer in space.next_layers(len(layers) + 1):
        if layer.op == Op.TERMINAL:
            yield Block((*layers, layer))
        else:
            yield from _codes(space, (*layers, layer))


@cache
def _work() -> tuple[Settings, Dataset]:
    torch.set_num_threads(1)
    settings = table_settings()
    return settings, load(settings.data, settings.seed)


def train(code: str) -> Outcome:
    """One row's outcome; in a worker process."""
    settings, data = _work()
    with tempfile.TemporaryDirectory() as directory:
        return train_candidate(
            Block.parse(code), settings, data, Path(directory), torch.device("cpu")
        )


def provenance() -> dict[str, str]:
    """How the table is made; asked before the training, since files may change meanwhile."""
    settings, data = _work()
    values = settings.to_dict()
    used = {name: values[name] for name in ("seed", "space", "data", "network", "recipe")}
    return {
        "command": "python -m benchmarks.digits_table",
        "commit": commit().removeprefix("commit "),
        "machine": machine.describe(),
        "date": time.strftime("%Y-%m-%d"),
        "fingerprint": data.fingerprint,
        "held_out_images": str(len(data.held_out)),
        "settings": json.dumps(used),
    }


def write_table(
    provenance: dict[str, str], blocks: list[Block], outcomes: list[Outcome], path: Path
) -> None:
    """The same rows give the same bytes."""
    text = io.StringIO()
    text.writelines(f"# {name}: {value}\n" for name, value in provenance.items())
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for block, outcome in zip(blocks, outcomes, strict=True):
        accuracy = "" if outcome.accuracy is None else repr(outcome.accuracy)
        spent = f"{outcome.seconds:.3f}"
        rows.writerow([block.key, block, outcome.kind, accuracy, outcome.restarts, spent])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def main() -> None:
    """Train, write, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="3 blocks, into nowhere")
    parser.add_argument("--to", type=Path, default=TABLE)
    options = parser.parse_args()
    blocks = distinct_blocks(SPACE)
    if options.quick:
        blocks = blocks[:3]
    print(f"digits table: {machine.describe()}; {len(blocks)} distinct blocks", flush=True)
    head = provenance()
    begun = time.perf_counter()
    with ProcessPoolExecutor(machine.cores(), get_context("spawn")) as pool:
        outcomes = list(pool.map(train, map(str, blocks)))
    seconds = time.perf_counter() - begun
    if not options.quick:
        head["whole"] = f"{seconds:.0f} seconds for {len(blocks)} blocks"
        write_table(head, blocks, outcomes, options.to)
        print(f"written to {os.path.relpath(options.to)}")
    accuracies = sorted(o.accuracy for o in outcomes if o.accuracy is not None)
    print(
        f"{len(outcomes)} blocks in {seconds:.0f} s, {len(accuracies)} trained, the others "
        f"diverged; accuracy {accuracies[0]:.2f} to "
        f"{accuracies[-1]:.2f} %, median {accuracies[len(accuracies) // 2]:.2f} %"
    )


if __name__ == "__main__":
    main()
