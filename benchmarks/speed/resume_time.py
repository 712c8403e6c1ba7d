"""Seconds to open the journal of a finished search of the paper's size, against those to make it.

    python -m benchmarks.speed.resume_time [--quick] [--directory DIR]

11,392 candidates with curves of 12 epochs are asked for and told in a temporary directory,
outcomes supplied; each outcome is on disk before the next, so the making is the journal's own
cost of a whole search. Then the search is opened again as a resume does it (every record checked,
the agent taught anew), and read as `blockqnn status` reads it.
"""

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from blockqnn.search import Search
from blockqnn.search.outcome import Outcome
from blockqnn.search.search import read_search
from blockqnn.settings import Budget, DataSettings, Settings
from blockqnn.settings.search import PAPER_SCHEDULE


def supplied_outcome(number: int) -> Outcome:
    """What 12 epochs of training leave behind."""
    curve = tuple(
        {
            "epoch": epoch,
            "loss": 2.3 / epoch + number * 1e-7,
            "train_accuracy": 100 - 90 / epoch + number * 1e-5,
            "accuracy": 90 - 80 / epoch + number * 1e-5,
            "learning_rate": 0.001 * 0.2 ** ((epoch - 1) // 5),
            "seconds": 4.123456789,
        }
        for epoch in range(1, 13)
    )
    return Outcome(kind="trained", accuracy=curve[-1]["accuracy"], curve=curve, seconds=49.5)


def make(directory: Path, settings: Settings) -> None:
    """Run a whole search with supplied outcomes."""
    with Search.open(directory, settings) as search:
        while not search.finished:
            candidate = search.ask()
            if candidate is not None:
                search.tell(candidate, supplied_outcome(candidate.number))


def main() -> None:
    """Print the times and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="192 candidates instead of 11,392")
    parser.add_argument("--directory", type=Path, help="where the temporary directory is made")
    options = parser.parse_args()
    settings = Settings(
        schedule=((1.0, 2), (0.1, 1)) if options.quick else PAPER_SCHEDULE,
        data=DataSettings(name="digits"),
        budget=Budget(memory=None),  # every candidate gets its curve
    )
    print(f"resume: {machine.describe()}", flush=True)
    with tempfile.TemporaryDirectory(dir=options.directory) as root:
        directory = Path(root) / "search"
        begun = time.perf_counter()
        make(directory, settings)
        made = time.perf_counter() - begun

        begun = time.perf_counter()
        with Search.open(directory, settings) as search:
            opened = time.perf_counter() - begun
            assert search.finished and search.ask() is None
        begun = time.perf_counter()
        count = len(read_search(directory).results)
        read = time.perf_counter() - begun
        size = (directory / "journal.jsonl").stat().st_size / 1e6
    print(f"{count:,} candidates, a journal of {size:.1f} MB, made in {made:.1f} s", flush=True)
    print(
        f"opened in {opened:.2f} s (aim 5), read alone in {read:.2f} s: "
        f"ratio {made / opened:.1f} of making to opening"
    )


if __name__ == "__main__":
    main()
