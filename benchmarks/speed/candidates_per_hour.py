"""Candidates an hour: a process a core with one thread each, against one process with every core.

    python -m benchmarks.speed.candidates_per_hour [--quick] [--blocks 12]

The demo's task (digits, its networks and recipe) with fixed random blocks, through the workers
that the search uses, so that the lines to and from a process count too. Also in this process
itself, with one thread, and through a Ray of this machine. Every worker has trained one block
before; the variants take turns.
"""

import argparse
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import starmap
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import machine
from blockqnn.params import load_settings
from blockqnn.settings import InlineSettings, LocalSettings, RaySettings, Settings
from blockqnn.training.devices import usable_cores
from blockqnn.workers.open import open_workers
from blockqnn.workers.protocol import Workers, candidate_task


def train_all(workers: Workers, codes: list[str], directory: Path) -> float:
    """Candidates an hour over these blocks."""
    # What a round left on disk would be an outcome of the next one, with nothing trained.
    shutil.rmtree(directory / "candidates", ignore_errors=True)
    begun = time.perf_counter()
    with ThreadPoolExecutor(workers.slots) as pool:
        list(pool.map(workers.train, starmap(candidate_task, enumerate(codes))))
    return 3600 * len(codes) / (time.perf_counter() - begun)


def variants(settings: Settings) -> dict[str, Settings]:
    """What is compared, by its name."""
    cores = usable_cores()
    kinds = {
        f"{cores} processes, 1 thread each": LocalSettings(count=cores, devices=("cpu",)),
        f"1 process, {cores} threads": LocalSettings(count=1, devices=("cpu",), threads=cores),
        "inline, 1 thread": InlineSettings(device="cpu"),
        f"Ray, {cores} CPUs": RaySettings(count=cores, gpus_per_candidate=0),
    }
    return {name: replace(settings, workers=workers) for name, workers in kinds.items()}


def main() -> None:
    """Print one line a variant, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="2 blocks, one epoch, one round")
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    overrides = {}
    if options.quick:
        options.blocks, options.rounds, overrides = 2, 1, {"recipe.epochs": 1, "data.images": 200}
    settings = load_settings(Path("params.yaml"), "demo", overrides)
    rng = np.random.default_rng(0)
    space = settings.space.build()
    codes = [str(space.sample(rng)) for _ in range(options.blocks)]
    print(
        f"candidates an hour: {machine.describe()}; the demo's task, {len(codes)} blocks",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as root:
        opened: dict[str, tuple[Workers, Path]] = {}
        rates: dict[str, list[float]] = {}
        try:
            for number, (name, chosen) in enumerate(variants(settings).items()):
                directory = Path(root) / str(number)
                directory.mkdir()
                workers = open_workers(chosen, directory)
                opened[name] = workers, directory
                rates[name] = []
                train_all(workers, [codes[0]] * workers.slots, directory)
            for _ in range(options.rounds):
                for name, (workers, directory) in opened.items():
                    rates[name].append(train_all(workers, codes, directory))
        finally:
            for workers, _ in opened.values():
                workers.close()
    hourly = [median(each) for each in rates.values()]
    for name, rate in zip(rates, hourly, strict=True):
        print(f"  {name:30} {rate:8.0f} candidates/h")
    one_process, inline, by_ray = (hourly[0] / other for other in hourly[1:])
    print(
        f"ratio {one_process:.2f} of a process a core to one with all cores, "
        f"{inline:.2f} to inline with one thread, {by_ray:.2f} to Ray"
    )


if __name__ == "__main__":
    main()
