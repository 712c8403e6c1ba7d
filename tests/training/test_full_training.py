"""One final training as a process: killed, stopped, damaged, under torchrun; its result and
weights.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_search import small_disk

from blockqnn.cost import network_cost
from blockqnn.data import load
from blockqnn.data.memory_feed import normalised_batches
from blockqnn.errors import SearchError, SettingsError
from blockqnn.network.timm_networks import count_macs
from blockqnn.network.weights import load_weights
from blockqnn.params import plan_from_dict
from blockqnn.training.final.job import prepare_job, read_job
from blockqnn.training.final.result import read_result
from blockqnn.training.final.run import STOPPED
from blockqnn.training.precision import count_correct
from blockqnn.zoo import BLOCKS, named_block

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
PLAN = {
    "data": {"name": "digits", "images": 400, "holdout": 0.3},
    "network": {"filters": [4, 8], "repeats": 1},
    "recipe": {"epochs": 3, "batch": 40, "optimizer": "momentum", "learning_rate": 0.05},
    "blocks": ["residual"],
    "checkpoint": {"epochs": 1, "minutes": 1e-6},
}


def tiny_plan(**changes):
    tree = {**PLAN}
    for name, value in changes.items():
        tree[name] = {**tree[name], **value} if isinstance(value, dict) else value
    return plan_from_dict(tree)


def job(run, label="residual", split="train", seed=0, plan=None, **subject):
    subject = subject or {"block": BLOCKS["residual"]}
    plan = plan or tiny_plan()
    return prepare_job(
        run, label=label, split=split, seed=seed, data="digits", plan=plan, **subject
    )


def command(directory, *options):
    return [sys.executable, "-m", "blockqnn.training.final", str(directory), *options]


def start(directory, *options, **streams):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(directory, "--device", "cpu", "--threads", "1", *options),
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        **streams,
    )


def finish(directory, *options):
    """(exit status, standard error) of a training run to its end."""
    with start(directory, *options) as process:
        _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def wait_for_epoch(directory, epochs, process):
    """Until the training has written down that so many epochs are done."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if len(json.loads((directory / "progress.json").read_text())["curve"]) >= epochs:
                return
        except (FileNotFoundError, ValueError):
            pass
        time.sleep(0.005)
    pytest.fail(f"ended with {process.poll()} before epoch {epochs}")


def load_network(directory):
    return load_weights(directory / "weights.safetensors")[0]


def timeless(curve):
    times = ("seconds", "images_per_second", "cores", "memory")
    return [{k: v for k, v in entry.items() if k not in times} for entry in curve]


def assert_same(directory, expected):
    ours, theirs = (load_file(d / "weights.safetensors") for d in (directory, expected))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert timeless(read_result(directory)["curve"]) == timeless(read_result(expected)["curve"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The directory of a training that nobody disturbed."""
    directory = job(tmp_path_factory.mktemp("run"))
    assert finish(directory) == (0, "")
    return directory


class TestResult:
    def test_what_it_says(self, finished):
        result = read_result(finished)
        cost = network_cost(
            BLOCKS["residual"],
            filters=(4, 8),
            repeats=1,
            num_classes=10,
            in_channels=1,
            image_size=8,
            skeleton="cifar",
        )
        assert (result["macs"], result["parameters"]) == (cost.macs, cost.parameters)
        assert [entry["epoch"] for entry in result["curve"]] == [1, 2, 3]
        assert result["accuracy"] == result["curve"][-1]["accuracy"]
        assert (result["label"], result["outcome"], result["seed"]) == ("residual", "trained", 0)
        assert result["block"] == str(BLOCKS["residual"])
        data = result["data"]
        assert (data["train_images"], data["held_out_images"]) == (280, 120)
        assert (data["label"], data["image_size"], data["in_channels"]) == ("digits", 8, 1)
        assert len(data["classes"]) == 10 and 0 < data["mean"][0] < 1

    def test_the_weights_have_the_accuracy_it_says(self, finished):
        network = load_network(finished)
        data = load(tiny_plan().data, 0)
        batches = normalised_batches(data, data.held_out)
        correct, seen = count_correct(network, batches, CPU, "float32", 10).sum(1).tolist()
        assert seen == 120
        assert 100 * correct / seen == pytest.approx(read_result(finished)["accuracy"], abs=2)

    def test_connected_blocks_are_trained_and_loaded_connected(self, finished, tmp_path):
        plan = tiny_plan(
            network={"repeats": 2, "connections": "concat"}, recipe={"epochs": 1, "batch": 40}
        )
        directory = job(tmp_path, plan=plan)
        assert finish(directory) == (0, "")
        result, network = read_result(directory), load_network(directory)
        assert result["network"]["connections"] == "concat"
        assert "connections" not in read_result(finished)["network"]
        assert result["macs"] == count_macs(network, 1, 8)
        # the second block of a stage reads what the first read, too: 4 + 4 and 4 + 8 channels
        assert [
            stage[1].layers["2"][1].in_channels for stage in (network.stage1, network.stage2)
        ] == [
            8,
            12,
        ]

    def test_nothing_to_go_on_with_is_left(self, finished):
        names = {path.name for path in finished.iterdir()}
        assert {"job.json", "result.json", "weights.safetensors", "best"} <= names
        assert not {"checkpoint", "checkpoint.previous"} & names

    def test_it_is_not_trained_again(self, finished):
        before = (finished / "result.json").stat().st_mtime_ns
        assert finish(finished) == (0, "")
        assert (finished / "result.json").stat().st_mtime_ns == before


class TestKills:
    @pytest.mark.parametrize("epochs", [0, 1, 2])
    def test_killed_it_goes_on(self, finished, tmp_path, epochs):
        directory = job(tmp_path)
        with start(directory) as process:
            wait_for_epoch(directory, epochs, process)
            process.kill()
        assert read_result(directory) is None
        assert finish(directory)[0] == 0
        assert_same(directory, finished)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_saves_and_ends(self, finished, tmp_path, number):
        directory = job(tmp_path)
        with start(directory) as process:
            wait_for_epoch(directory, 1, process)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (STOPPED, "")
        assert (directory / "checkpoint").exists()
        assert finish(directory)[0] == 0
        assert_same(directory, finished)

    def test_a_let_go_leash_does_too(self, tmp_path):
        directory = job(tmp_path, plan=tiny_plan(recipe={"epochs": 500}))
        with start(directory, "--leash", stdin=subprocess.PIPE) as process:
            wait_for_epoch(directory, 1, process)
            process.stdin.close()
            assert process.wait(timeout=60) == STOPPED
            process.stderr.close()
        assert (directory / "checkpoint").exists()

    def test_a_truncated_checkpoint(self, finished, tmp_path):
        directory = job(tmp_path)
        with start(directory) as process:
            wait_for_epoch(directory, 2, process)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        path = directory / "checkpoint"
        path.write_bytes(path.read_bytes()[:-1000])
        status, errors = finish(directory)
        assert status == 0
        assert "checkpoint is damaged and is not used" in errors
        assert "checkpoint.previous is used instead" in errors
        assert_same(directory, finished)

    def test_a_second_one_waits_for_the_first(self, finished, tmp_path):
        directory = job(tmp_path)
        with start(directory) as first, start(directory) as second:
            assert [first.wait(timeout=120), second.wait(timeout=120)] == [0, 0]
            first.stderr.close()
            second.stderr.close()
        assert_same(directory, finished)


class TestJobs:
    def test_a_changed_setting_is_another_training(self, tmp_path):
        first = job(tmp_path)
        others = [
            job(tmp_path, plan=tiny_plan(recipe={"epochs": 4})),
            job(tmp_path, plan=tiny_plan(network={"repeats": 2})),
            job(tmp_path, plan=tiny_plan(data={"images": 300})),
            job(tmp_path, seed=1),
            job(tmp_path, split="everything"),
            job(tmp_path, block=BLOCKS["plain"]),
            job(tmp_path, timm="resnet10t"),
        ]
        assert len({first, *others}) == 8
        assert job(tmp_path, plan=tiny_plan(checkpoint={"epochs": 7})) == first
        assert read_job(first).plan.checkpoint.epochs == 7  # it counts from now on

    def test_what_it_is_called_does_not_leave_the_run(self, tmp_path):
        directory = job(tmp_path, label="../../etc/passwd x")
        assert directory.parent == tmp_path / "trainings"

    def test_round_trip(self, tmp_path):
        read = read_job(job(tmp_path, seed=3))
        assert (read.block, read.timm, read.seed) == (str(BLOCKS["residual"]), None, 3)
        assert read.plan == tiny_plan()

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}', '{"version": 9}', "\0"])
    def test_a_damaged_one_is_one_sentence(self, tmp_path, content):
        directory = job(tmp_path)
        (directory / "job.json").write_text(content)
        with pytest.raises(SearchError, match=r"job\.json"):
            read_job(directory)
        status, errors = finish(directory)
        assert status == 1
        assert errors.startswith("blockqnn: ") and errors.count("\n") == 1

    def test_no_training_there(self, tmp_path):
        assert finish(tmp_path) == (1, f"blockqnn: there is no training in {tmp_path} (No such "
                                       "file or directory)\n")  # fmt: skip

    def test_other_images_than_those_it_was_written_for(self, tmp_path):
        directory = job(tmp_path)
        content = json.loads((directory / "job.json").read_text())
        content["plan"]["data"]["images"] = 300
        (directory / "job.json").write_text(json.dumps(content))
        status, errors = finish(directory)
        assert status == 1
        assert "images of data.root are not those" in errors

    def test_blocks_by_name_and_code(self):
        assert named_block("S") == ("S", BLOCKS["S"])
        label, block = named_block("(1,1,3,0,0)(2,7,0,0,0)")
        assert label == f"block-{block.key[:6]}"
        with pytest.raises(SettingsError, match=r"blocks has '\(1,9\)': .*give one of A, B, S"):
            named_block("(1,9)")


def test_a_comparator(tmp_path):
    directory = job(
        tmp_path, label="resnet10t", timm="resnet10t", plan=tiny_plan(recipe={"epochs": 1})
    )
    assert finish(directory) == (0, "")
    result = read_result(directory)
    assert (result["timm"], result["block"], result["network"]) == ("resnet10t", None, None)
    assert load_network(directory)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_a_diverged_training_is_a_result(tmp_path):
    directory = job(tmp_path, plan=tiny_plan(recipe={"learning_rate": 1e38}))
    assert finish(directory)[0] == 0
    result = read_result(directory)
    assert (result["outcome"], result["accuracy"]) == ("diverged", None)
    assert "not finite" in result["reason"]
    assert not (directory / "weights.safetensors").exists()


def test_everything_leaves_nothing_to_measure_on(tmp_path):
    directory = job(tmp_path, split="everything", plan=tiny_plan(recipe={"epochs": 1}))
    assert finish(directory) == (0, "")
    result = read_result(directory)
    assert (result["data"]["train_images"], result["data"]["held_out_images"]) == (400, 0)
    assert result["accuracy"] is None
    assert "accuracy" not in result["curve"][0]


def test_a_full_disk_is_one_sentence_and_costs_nothing(finished, tmp_path):
    with small_disk(tmp_path / "disk", 60) as disk:
        directory = job(disk)
        status, errors = finish(directory)
        assert status == 1
        assert "No space left on device" in errors and errors.count("\n") == 1
        kept = tmp_path / "kept" / directory.name
        shutil.copytree(directory, kept)
    assert finish(kept)[0] == 0
    assert_same(kept, finished)


def test_under_torchrun(tmp_path):
    two, one = (
        job(tmp_path / str(n), plan=tiny_plan(recipe={"accumulate": n, "precision": "float32"}))
        for n in (1, 2)  # one process takes in two parts what two processes share
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, *command(two, "--device", "cpu", "--threads", "1")[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert finish(one) == (0, "")
    ours, theirs = read_result(two), read_result(one)
    assert (ours["devices"], theirs["devices"]) == (2, 1)
    for entry, wanted in zip(ours["curve"], theirs["curve"], strict=True):
        assert entry["loss"] == pytest.approx(wanted["loss"], rel=2e-3)


def test_matched_networks_are_trained_with_the_filters_of_their_cost(tmp_path):
    plan = tiny_plan(network={"filters": [32, 64], "match": "macs"})
    shape = {"repeats": 1, "num_classes": 10, "in_channels": 1, "image_size": 8}
    target = network_cost(BLOCKS["plain"], filters=(32, 64), **shape).macs
    for name in ("plain", "residual", "inception"):
        network = read_job(job(tmp_path, label=name, plan=plan, block=BLOCKS[name])).plan.network
        assert network.match == "none"
        macs = network_cost(BLOCKS[name], filters=network.filters, **shape).macs
        assert macs == pytest.approx(target, rel=0.03)
