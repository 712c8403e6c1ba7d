"""Speed as a person would measure it, and one training judged as its files say."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from blockqnn.cost import network_cost
from blockqnn.data import load
from blockqnn.data.memory_feed import normalised_batches
from blockqnn.errors import SearchError
from blockqnn.network import build_network
from blockqnn.network.timm_networks import build_comparator, count_macs
from blockqnn.settings import DataSettings, EvaluationSettings
from blockqnn.training.speed import measure_speed
from blockqnn.zoo import BLOCKS
from evaluation.test_set import evaluate_network, judge

CPU = torch.device("cpu")
SETTINGS = EvaluationSettings(batches=(1, 4), repeats=3)


class Slow(nn.Module):
    """Takes a known time an image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.passes: list[tuple[int, bool, bool]] = []

    def forward(self, images):
        last = images.is_contiguous(memory_format=torch.channels_last)
        self.passes.append((len(images), last, self.training))
        time.sleep(0.004 * len(images))
        return images.new_zeros(len(images), 3)


def speed(network, **settings):
    defaults = {"batches": (1, 4), "in_channels": 3, "image_size": 8, "device": CPU, "repeats": 5}
    return measure_speed(network, **{**defaults, **settings})


def test_times_are_those_of_a_known_network():
    network = Slow()
    one, four = speed(network)
    assert (one["batch"], four["batch"]) == (1, 4)
    assert 4 <= one["low"] <= one["milliseconds"] <= one["high"]
    assert one["milliseconds"] < 100
    assert 16 <= four["milliseconds"] < 200
    assert four["images_per_second"] == pytest.approx(4000 / four["milliseconds"])
    assert (one["passes"], four["passes"]) == (5, 5)
    assert one["threads"] == torch.get_num_threads() and one["device"]
    warm_ups = [count for count, _, _ in network.passes].count(1) - 5
    assert warm_ups >= 3
    assert all(last and not training for _, last, training in network.passes)
    assert network.training  # as it was before


def test_times_beside_other_work_are_called_so():
    burn = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(burn) for _ in range(os.cpu_count() or 1)]
    try:
        assert [row["busy"] for row in speed(Slow(), batches=(64,))] == [True]
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_a_batch_beyond_memory_is_left_out_with_a_reason():
    class Hungry(Slow):
        def forward(self, images):
            if len(images) > 1:
                return torch.empty(1 << 58)  # more bytes than there are: torch's own error
            return super().forward(images)

    one, four = speed(Hungry())
    assert one["milliseconds"] is not None and "reason" not in one
    assert four["reason"] == "out of memory"
    assert four["milliseconds"] is four["images_per_second"] is None


def test_any_other_failure_is_not_hidden():
    class Broken(Slow):
        def forward(self, images):
            raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        speed(Broken())


@pytest.mark.gpu
def test_a_gpu_measures_with_its_own_events():
    network = build_network(BLOCKS["S"], filters=(8, 16), repeats=1, num_classes=10)
    rows = speed(network, device=torch.device("cuda"), image_size=32, batches=(1, 256, 1 << 24))
    assert rows[0]["device"] == torch.cuda.get_device_name() and rows[0]["threads"] is None
    assert rows[1]["images_per_second"] > rows[0]["images_per_second"]
    assert rows[2]["reason"] == "out of memory"


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_another_gpu_than_the_first_is_waited_for_too():
    network = build_network(BLOCKS["S"], filters=(32, 64), repeats=2, num_classes=10)
    first, second = (
        speed(network, device=torch.device("cuda", n), image_size=32, batches=(512,))[0]
        for n in (0, 1)
    )
    assert second["milliseconds"] > first["milliseconds"] / 3  # not the launch alone


def trained(label, block=None, timm=None):
    """As much of a result.json as judging needs."""
    return {
        "label": label,
        "block": block,
        "timm": timm,
        "seed": 0,
        "split": "everything",
        "identity": "abc",
        "data": {
            "name": "digits",
            "classes": [str(i) for i in range(10)],
            "in_channels": 1,
            "image_size": 8,
        },
        "network": {"skeleton": "cifar", "filters": [4, 8], "repeats": 1} if block else None,
        "recipe": {"precision": "float32"},
        "a later version's key": 1,
    }


@pytest.fixture(scope="module")
def digits():
    return load(DataSettings(name="digits", holdout=0.3), seed=0)


def small(name="residual"):
    return build_network(BLOCKS[name], filters=(4, 8), repeats=1, num_classes=10, in_channels=1)


def test_a_block_is_judged(digits):
    network = small()
    found = judge(
        network,
        trained("residual", block=str(BLOCKS["residual"])),
        id="residual-everything-0-abc",
        test=normalised_batches(digits, digits.held_out),
        device=CPU,
        settings=SETTINGS,
    )
    cost = network_cost(
        BLOCKS["residual"], filters=(4, 8), repeats=1, num_classes=10, in_channels=1, image_size=8
    )
    assert (found["parameters"], found["macs"]) == (cost.parameters, cost.macs)
    assert count_macs(network, 1, 8) == cost.macs  # torch's counter agrees
    network.eval()
    images = digits.normalised(digits.held_out.images)
    with torch.no_grad():
        right = network(images).argmax(dim=1) == digits.held_out.labels
    test = found["test"]
    assert test["top1"]["value"] == pytest.approx(100 * right.float().mean().item())
    assert (test["images"], test["size"]) == (len(digits.held_out), 8)
    assert [row["batch"] for row in found["speed"]] == [1, 4]
    assert (found["label"], found["timm"], found["larger"]) == ("residual", None, None)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_timm_model_is_judged_at_two_sizes(digits):
    network = build_comparator("resnet10t", num_classes=10, in_channels=1, image_size=8)
    batches = list(normalised_batches(digits, digits.held_out))
    larger = [(nn.functional.interpolate(images, 16), labels) for images, labels in batches]
    found = judge(
        network,
        trained("resnet10t", timm="resnet10t"),
        id="x",
        test=batches,
        larger=larger,
        device=CPU,
        settings=SETTINGS,
    )
    assert (found["test"]["size"], found["larger"]["size"]) == (8, 16)
    assert found["macs"] == count_macs(network, 1, 8)


def test_precision_is_asked_for(digits):
    seen = []

    class Watched(nn.Module):
        def forward(self, images):
            weight = torch.zeros(64, 10)
            outputs = images.flatten(1) @ weight
            seen.append(outputs.dtype)
            return outputs

    batches = list(normalised_batches(digits, digits.held_out))
    for precision in ("float32", "bfloat16"):
        evaluate_network(Watched(), batches, digits.classes, CPU, precision)
    assert set(seen) == {torch.float32, torch.bfloat16}


def test_what_cannot_be_judged_is_one_sentence():
    network = small()
    settings = {"id": "x", "device": CPU, "settings": SETTINGS}
    with pytest.raises(SearchError, match="small cannot be judged .* no images were counted"):
        judge(network, trained("small", block=str(BLOCKS["residual"])), test=[], **settings)
    mixed = [(torch.zeros(2, 1, s, s), torch.zeros(2)) for s in (8, 16)]
    with pytest.raises(SearchError, match="images of 8 and of 16 pixels are mixed"):
        judge(network, trained("small", block=str(BLOCKS["residual"])), test=mixed, **settings)
    bad = [(torch.full((2, 1, 8, 8), float("inf")), torch.zeros(2))]
    with pytest.raises(SearchError, match="outputs of 2 of 2 images are not finite"):
        judge(network, trained("small", block=str(BLOCKS["residual"])), test=bad, **settings)
