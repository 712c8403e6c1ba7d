"""Final trainings of seconds that several tests share, and the command that runs them."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from tiny_search import finish, tiny_settings

from blockqnn.params import load_plan
from blockqnn.training.final.job import prepare_job
from blockqnn.training.final.run import train

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0
PARAMS = {
    "recipes": {
        "tiny": {
            "epochs": 2,
            "batch": 64,
            "optimizer": "momentum",
            "learning_rate": 0.05,
            "schedule": "cosine",
        }
    },
    "training": {
        "digits": {
            "data": {"name": "digits", "images": 300, "holdout": 0.3},
            "network": {"filters": [8], "repeats": 1},
            "recipe": "tiny",
            "seed": 3,
            "seeds": 1,
            "search": "tiny",
            "top": 2,
            "blocks": ["residual"],
            "compare": ["test_resnet"],
            "workers": {"threads": 1},
            "tracking": False,
        }
    },
    "evaluation": {"batches": [1, 8], "repeats": 2},
}


class Place:
    """A directory with a params file, where `blockqnn` runs and meets no server of the user's.

    It uses the Prefect server at `api`; without one, a temporary server of its own.
    """

    def __init__(self, path, api=None):
        self.path = path
        self.api = api
        self.runs = path / "runs"
        self.run = self.runs / "train-digits"
        path.mkdir(exist_ok=True)
        (path / "params.yaml").write_text(json.dumps(PARAMS))

    def search(self):
        """A finished search named tiny, whose outcomes were made up."""
        return finish(self.runs / "tiny", tiny_settings())

    def plan(self, **overrides):
        return load_plan(self.path / "params.yaml", "digits", None, overrides)

    def job(self, label, plan=None, split="everything", seed=0, **subject):
        """Prepare a training as the flow does."""
        return prepare_job(
            self.run,
            label=label,
            split=split,
            seed=seed,
            data="digits",
            plan=plan or self.plan(),
            **subject,
        )

    def start(self, command, *arguments, **options):
        """`blockqnn COMMAND` in a process of its own."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PREFECT_HOME": str(self.path / "prefect"),
            "OMP_NUM_THREADS": "1",
        }
        for name in ("PREFECT_API_URL", "BLOCKQNN_RUNS", "MLFLOW_TRACKING_URI"):
            environment.pop(name, None)
        if self.api is not None:
            environment["PREFECT_API_URL"] = self.api
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", command, *map(str, arguments)],
            cwd=self.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def call(self, command, *arguments):
        """Exit status, output and errors of `blockqnn COMMAND`."""
        return ended(self.start(command, *arguments))

    def trainings(self):
        """The directories of all trainings, by the part of their name before the identity."""
        found = (self.run / "trainings").glob("*/job.json")
        return {path.parent.name.rpartition("-")[0]: path.parent for path in found}


def train_here(directory):
    """Train a prepared job in this process."""
    train(directory, ["cpu"], 1, threading.Event())
    return directory


def ended(process):
    """Exit status, output and errors."""
    output, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, output, errors


def sentence(errors):
    """The one sentence said."""
    lines = errors.strip().splitlines()
    assert len(lines) == 1, errors
    assert lines[0].startswith("blockqnn: ")
    return lines[0]


def untouched(directory):
    """What tells a file that was written again from one that was not."""
    files = sorted(path for path in directory.rglob("*.json") if path.name != "progress.json")
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}
