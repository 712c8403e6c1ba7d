"""Two processes over gloo end where one process ends with the same batches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import tiny_data, tiny_trainer

from blockqnn.data.feed import Share

ROOT = Path(__file__).parents[2]
RECIPE = {
    "epochs": 2,
    "batch": 32,
    "optimizer": "momentum",
    "learning_rate": 0.05,
    "sync_batch_norm": True,
}


def train_with_two(directory, recipe, *words):
    """Run the tiny training with two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(ROOT / "tests" / "data_parallel.py")]
    done = subprocess.run(
        [*command, str(directory), json.dumps(recipe), *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def end_of(directory):
    return torch.load(directory / "end.pt", weights_only=True)


def assert_close(state, curve, expected):
    for name, value in expected.network.state_dict().items():
        torch.testing.assert_close(
            state[name].contiguous(), value.contiguous(), rtol=2e-3, atol=2e-4, msg=name
        )
    for entry, wanted in zip(curve, expected.curve, strict=True):
        assert entry["loss"] == pytest.approx(wanted["loss"], rel=1e-3)
        assert entry["train_accuracy"] == pytest.approx(wanted["train_accuracy"], abs=1.5)
        assert entry["accuracy"] == pytest.approx(wanted["accuracy"], abs=4)
        assert entry["learning_rate"] == wanted["learning_rate"]


def test_two_processes_end_where_one_does(tmp_path):
    train_with_two(tmp_path, RECIPE)
    expected = tiny_trainer(tiny_data(), **RECIPE)
    expected.run()
    end = end_of(tmp_path)
    assert_close(end["network"], end["curve"], expected)


def test_without_common_statistics_they_are_the_two_parts_of_a_batch(tmp_path):
    recipe = {**RECIPE, "sync_batch_norm": False, "ema": 0.9}
    said = train_with_two(tmp_path, recipe).splitlines()
    first, second = (line for line in said if line.startswith("statistics"))
    assert first == second  # of what is kept: the mean of both
    expected = tiny_trainer(tiny_data(), **recipe, accumulate=2)
    expected.run()
    state = end_of(tmp_path)["network"]
    for name, value in expected.network.named_parameters():
        torch.testing.assert_close(state[name], value.detach(), rtol=2e-3, atol=2e-4)


def test_two_processes_go_on_in_the_middle_of_an_epoch(tmp_path):
    recipe = {**RECIPE, "batch": 8, "epochs": 3}
    assert train_with_two(tmp_path, recipe, "stop").count("stopped") == 2
    assert (tmp_path / "checkpoint").exists()
    train_with_two(tmp_path, recipe)
    expected = tiny_trainer(tiny_data(), **recipe)
    expected.run()
    end = end_of(tmp_path)
    assert [entry["epoch"] for entry in end["curve"]] == [1, 2, 3]
    assert_close(end["network"], end["curve"], expected)


@pytest.mark.parametrize("count", [0, 1, 5, 8, 64, 129])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_shares_are_disjoint_and_whole(count, world):
    images = list(range(count))
    shares = [images[Share(rank, world).of(count)] for rank in range(world)]
    assert [image for share in shares for image in share] == images
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
