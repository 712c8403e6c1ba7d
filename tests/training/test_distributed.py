"""Two processes over gloo end where one process ends that takes every batch in two parts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import tiny_data, tiny_network, tiny_trainer

from blockqnn.data.feed import Share
from blockqnn.errors import SettingsError
from blockqnn.training.distributed import Group, synchronise_batch_norm

ROOT = Path(__file__).parents[2]
RECIPE = {"epochs": 2, "batch": 32, "optimizer": "momentum", "learning_rate": 0.05}


def train_with_two(directory, recipe, *words):
    """Run the tiny training with two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(ROOT / "tests" / "helpers" / "data_parallel.py")]
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


def assert_close(end, recipe):
    """Two processes end with the weights and the curve of one that takes batches in two parts."""
    expected = tiny_trainer(tiny_data(), **recipe, accumulate=2)
    expected.run()
    for name, value in expected.network.named_parameters():
        torch.testing.assert_close(
            end["network"][name].contiguous(), value.detach().contiguous(), rtol=2e-3, atol=2e-4
        )
    for entry, wanted in zip(end["curve"], expected.curve, strict=True):
        assert entry["loss"] == pytest.approx(wanted["loss"], rel=1e-3)
        assert entry["train_accuracy"] == pytest.approx(wanted["train_accuracy"], abs=1.5)
        assert entry["learning_rate"] == wanted["learning_rate"]


def test_two_processes_train_as_one_does(tmp_path):
    recipe = {**RECIPE, "ema": 0.9}
    said = train_with_two(tmp_path, recipe).splitlines()
    first, second = (line for line in said if line.startswith("statistics"))
    assert first == second  # of what is kept: the mean of both
    assert_close(end_of(tmp_path), recipe)


def test_all_processes_make_as_many_passes_however_uneven_their_shares(tmp_path):
    """Synchronised batch norm, of GPUs alone, waits for the others in each pass."""
    recipe = {**RECIPE, "batch": 7, "epochs": 1}  # shares of four and three
    said = train_with_two(tmp_path, {**recipe, "accumulate": 2}).splitlines()
    steps = -(-len(tiny_data().train) // 7)
    assert [line for line in said if line.startswith("passes")] == [f"passes {steps}"] * 2
    assert_close(end_of(tmp_path), recipe)


def test_two_processes_go_on_in_the_middle_of_an_epoch(tmp_path):
    recipe = {**RECIPE, "batch": 8, "epochs": 3}
    assert train_with_two(tmp_path, recipe, "stop").count("stopped") == 2
    assert (tmp_path / "checkpoint").exists()
    train_with_two(tmp_path, recipe)
    assert_close(end_of(tmp_path), recipe)


def test_several_processes_on_a_cpu_share_no_batch_norm():
    trainer = tiny_trainer(tiny_data(), sync_batch_norm=True)
    trainer.group = Group(0, 2)
    with pytest.raises(SettingsError, match=r"recipe\.sync_batch_norm is True.* set it to false"):
        trainer.run()
    assert trainer.curve == []


def test_one_process_needs_no_common_batch_norm():
    assert len(tiny_trainer(tiny_data(), epochs=1, sync_batch_norm=True).run()) == 1


def test_on_gpus_batch_norm_is_torchs_own_and_keeps_its_weights():
    shared, plain = synchronise_batch_norm(tiny_network(), torch.device("cuda")), tiny_network()
    assert not any(type(module) is torch.nn.BatchNorm2d for module in shared.modules())
    state = shared.state_dict()
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("count", [0, 1, 5, 8, 64, 129])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_shares_are_disjoint_and_whole(count, world):
    images = list(range(count))
    shares = [images[Share(rank, world).of(count)] for rank in range(world)]
    assert [image for share in shares for image in share] == images
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
