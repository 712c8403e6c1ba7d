"""A program for torchrun: the tiny training by several processes, its weights and curve to a file.

`torchrun ... tests/helpers/data_parallel.py DIRECTORY '{"epochs": 2}' [stop]` writes
DIRECTORY/end.pt from the first process; with `stop` it stops in the middle of the second epoch, its
state saved.
"""

import json
import sys
from pathlib import Path

import torch
from tiny_training import CPU, tiny_data, tiny_trainer

from blockqnn.data import MemoryFeed
from blockqnn.training.distributed import join, leave
from blockqnn.training.trainer import Interrupted


def main():
    """See the top of the file."""
    torch.set_num_threads(1)
    directory, recipe, stop = Path(sys.argv[1]), json.loads(sys.argv[2]), "stop" in sys.argv[3:]
    group = join(CPU)
    digits = tiny_data()
    trainer = tiny_trainer(digits, directory, **recipe)
    trainer.group = group
    trainer.feed = MemoryFeed(digits, trainer.recipe, 7, CPU, group)
    given, passes = [], []
    trainer.network.register_forward_pre_hook(lambda network, _: passes.append(network.training))
    if stop:
        trainer.watch = lambda epoch, step: given.append(step)
        trainer.stop = lambda: len(given) >= trainer.feed.steps() + 10
    try:
        trainer.run()
    except Interrupted:
        print("stopped", flush=True)
    statistics = [b.double().sum() for n, b in trainer.kept.named_buffers() if "running" in n]
    # one write, which the other process's cannot come into
    sys.stdout.write(f"statistics {float(sum(statistics))!r}\npasses {sum(passes)}\n")
    if group.rank == 0 and not stop:
        end = {"network": trainer.network.state_dict(), "curve": trainer.curve}
        torch.save(end, directory / "end.pt")
    leave(group)


if __name__ == "__main__":
    main()
