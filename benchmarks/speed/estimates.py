"""What `blockqnn estimate` says before, against what the same search and trainings then take.

    python -m benchmarks.speed.estimates [--quick]

The demo's search and the plan of the digits, which ranks its best blocks, each estimated and then
run. The aim is a factor of 1.5 either way.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine
from blockqnn.estimate.memory import MemoryWatch

ROOT = Path(__file__).parents[2]
QUICK = {
    "search": ["--set", "schedule=[[1.0, 1]]", "batch=4", "recipe.epochs=2"],
    "train": ["--set", "recipe.epochs=2", "recipe.warmup_epochs=0", "blocks=[plain]", "compare=[]"],
}


def blockqnn(arguments: Sequence[str]) -> str:
    """What a command of blockqnn prints; an error ends this script."""
    command = [sys.executable, "-m", "flows.cli", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def size_of(directory: Path) -> int:
    """Bytes of all files of the runs, without MLflow's database and Prefect's."""
    files = (path for path in directory.rglob("*") if path.is_file() and ".db" not in path.name)
    return sum(path.stat().st_size for path in files)


def compare(kind: str, options: Sequence[str], runs: Path) -> str:
    """Estimate and run; how much more than estimated was taken."""
    arguments = [kind, *options, "--runs", str(runs)]
    needs = json.loads(blockqnn(["estimate", *arguments, "--json"]))
    before = size_of(runs)
    with MemoryWatch() as watch:
        begun = time.monotonic()
        blockqnn(arguments)
        seconds = time.monotonic() - begun
    taken = {"seconds": seconds, "memory": watch.processes, "disk": size_of(runs) - before}
    for name, value in taken.items():
        print(f"{kind}: {name} {value:,.0f}, estimated {needs[name]:,.0f}")
    ratios = (
        f"{'time' if name == 'seconds' else name} {value / needs[name]:.2f}"
        for name, value in taken.items()
    )
    return f"{kind}: {', '.join(ratios)}"


def main() -> None:
    """Print what was taken and estimated, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few trainings of two epochs")
    options = parser.parse_args()
    print(machine.describe())
    os.environ.pop("BLOCKQNN_RUNS", None)
    found = []
    with tempfile.TemporaryDirectory() as place:
        for kind, of in (("search", ["--profile", "demo"]), ("train", ["--data", "digits"])):
            own = [*of, *(QUICK[kind] if options.quick else [])]
            found.append(compare(kind, own, Path(place) / "runs"))
    print(f"taken beside what was estimated: {'; '.join(found)} (aim 0.67 to 1.5)")


if __name__ == "__main__":
    main()
