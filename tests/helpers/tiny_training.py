"""A training of a few seconds that tests share; as a program, one that stops where it is told to.

`python tests/helpers/tiny_training.py DIRECTORY epoch|write|memory` prints a line when it has got
there. For `epoch` and `write` it then waits to be killed.
"""

import io
import subprocess
import sys
from pathlib import Path

import torch

from blockqnn.data import Dataset, MemoryFeed
from blockqnn.data import dataset as data
from blockqnn.data import memory_feed as feeds
from blockqnn.data.augment import augment as plain_augment
from blockqnn.network import build_network
from blockqnn.params import settings_from_dict
from blockqnn.search import candidate
from blockqnn.settings import DataSettings, Recipe
from blockqnn.space import Block
from blockqnn.training import checkpoint, devices
from blockqnn.training.checkpoint import Checkpoint
from blockqnn.training.trainer import Trainer
from blockqnn.zoo import BLOCKS

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
DIGITS = {"name": "digits", "images": 200, "holdout": 0.3}
RECIPE = {
    "epochs": 4,
    "batch": 32,
    "learning_rate": 0.01,
    "decay_epochs": 2,
    "crop": 1,
    "flip": True,
    "cutout": 2,
    "precision": "float32",
}
WIDE = Block.parse("(1,1,5,0,0)(2,1,3,1,0)(3,3,3,1,0)(4,2,3,1,0)(5,6,0,2,3)(6,7,0,0,0)")


def tiny_data():
    """140 digits to train on, 60 held out."""
    return data.load(DataSettings(**DIGITS), seed=0)


def tiny_network(seed=0):
    """The residual block in two narrow stages."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_network(
            BLOCKS["residual"], filters=(4, 6), repeats=1, num_classes=10, in_channels=1
        )


def tiny_trainer(digits, directory=None, network=None, identity="tiny", **recipe):
    """A trainer of the tiny network, with a checkpoint when it has a directory."""
    settings = Recipe(**{**RECIPE, **recipe})
    device = digits.train.images.device
    return Trainer(
        network=network or tiny_network(),
        recipe=settings,
        feed=MemoryFeed(digits, settings, 7, device),
        seed=7,
        device=device,
        checkpoint=Checkpoint(directory / "checkpoint", identity) if directory else None,
    )


def tiny_settings(filters=(4, 6), **recipe):
    """Settings of a search that trains such networks."""
    return settings_from_dict(
        {
            "data": DIGITS,
            "network": {"filters": list(filters), "repeats": 1},
            "recipe": {**RECIPE, **recipe},
        }
    )


def without_seconds(curve):
    """A curve without what differs from run to run."""
    times = ("seconds", "images_per_second", "cores", "memory")
    return [{name: entry[name] for name in entry if name not in times} for entry in curve]


def program(directory, mode):
    """This file as a program."""
    return subprocess.Popen(
        [sys.executable, __file__, str(directory), mode],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def stop_here():
    """Say so, and wait for the end."""
    print("here", flush=True)
    sys.stdin.read()


def stop_in_an_epoch(batches):
    """Stop before a batch, counted from 1 over all epochs."""
    seen = 0

    def augment(*arguments, **options):
        nonlocal seen
        seen += 1
        if seen == batches:
            stop_here()
        return plain_augment(*arguments, **options)

    feeds.augment = augment


def stop_in_a_write(saves):
    """Stop with half of a checkpoint written."""
    write_atomically, seen = checkpoint.write_atomically, 0

    def write(path, write_all):
        def write_half(file):
            whole = io.BytesIO()
            write_all(whole)
            file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
            file.flush()
            stop_here()

        nonlocal seen
        seen += 1
        write_atomically(path, write_half if seen == saves else write_all)

    checkpoint.write_atomically = write


def run_out_of_memory(directory):
    """Train a network beyond the memory this process may take, then one within it."""
    Dataset.constant_guess = lambda data, metric: 0.0  # whatever it learns in one epoch
    digits = tiny_data()
    free = devices._free_memory()
    devices.limit_memory(CPU, share=int(0.9 * free / 250e6))
    for block, filters in ((WIDE, (1024, 1024)), (BLOCKS["residual"], (4, 6))):
        settings = tiny_settings(filters, epochs=1, batch=128, restarts=0)
        outcome = candidate.train_candidate(block, settings, digits, directory, CPU)
        print(outcome.kind, outcome.reason or "-", flush=True)


def main():
    """See the top of the file."""
    torch.set_num_threads(1)
    directory, mode = Path(sys.argv[1]), sys.argv[2]
    if mode == "memory":
        run_out_of_memory(directory)
        return
    if mode == "epoch":
        stop_in_an_epoch(batches=13)  # the third of five batches of the third epoch
    else:
        stop_in_a_write(saves=2)
    tiny_trainer(tiny_data(), directory).run()


if __name__ == "__main__":
    main()
