"""Prices of layers on a device: fitted to measurements, summed over networks, measured."""

import json
import subprocess
import sys

import numpy as np
import pytest

from blockqnn.cost import DeviceCost, NetworkLayer, network_layers
from blockqnn.cost.device import (
    among_others,
    fit_prices,
    layer_kind,
    layer_terms,
    priced,
    update_terms,
)
from blockqnn.params import settings_from_dict
from blockqnn.space import V1, V2, Block
from blockqnn.training.calibration import calibrate
from blockqnn.training.device_prices import Request
from blockqnn.zoo import BLOCKS

TRUE = {
    "stem 3": [2e-3, 1.0],
    "pcc 1": [1e-4, 2e-5, 3e-3, 2e-3, 10.0],
    "pcc 3": [9e-5, 1e-5, 3e-3, 2e-3, 15.0],
    "pcc 5": [8e-5, 1e-5, 2e-3, 2e-3, 17.0],
    "separable 3": [1e-4, 1e-5, 6e-3, 1e-3, 18.0],
    "separable 5": [1e-4, 2e-5, 1e-2, 1e-3, 20.0],
    "max_pool 3": [5e-3, 2.0],
    "avg_pool 3": [4e-3, 3.0],
    "pool 2": [2e-3, 1.0],
    "add": [1e-3, 1.0],
    "concat": [2e-3, 1.5],
    "head": [1e-3, 1e-4, 5.0],
}
NETWORK = {"filters": (8, 16, 32), "repeats": 2, "num_classes": 10}


def networks(count=60):
    rng = np.random.default_rng(0)
    blocks = [space.sample(rng) for space in (V1, V2) for _ in range(count // 2)]
    return [list(network_layers(block, **NETWORK)) for block in blocks]


def test_the_layers_of_a_network_by_hand():
    block = Block.parse("(1,1,3,0,0)(2,2,3,1,0)(3,6,0,1,2)(4,7,0,0,0)")
    runs = list(network_layers(block, filters=(4, 8), repeats=2, num_classes=5, image_size=8))
    assert runs == [
        (1, [("stem", 3, 3, 4, 8)]),
        (1, [("pcc", 3, 4, 4, 8), ("max_pool", 3, 4, 4, 8), ("concat", 0, 8, 8, 8)]),
        (1, [("pcc", 3, 8, 4, 8), ("max_pool", 3, 4, 4, 8), ("concat", 0, 8, 8, 8)]),
        (1, [("pool", 2, 8, 8, 4)]),
        (1, [("pcc", 3, 8, 8, 4), ("max_pool", 3, 8, 8, 4), ("concat", 0, 16, 16, 4)]),
        (1, [("pcc", 3, 16, 8, 4), ("max_pool", 3, 8, 8, 4), ("concat", 0, 16, 16, 4)]),
        (1, [("head", 0, 16, 5, 4)]),
    ]


def test_a_price_by_hand():
    prices = {"pcc 3": [1.0, 0.5, 10.0, 100.0, 1000.0], "add": [7.0, 3.0]}
    layers = [NetworkLayer("pcc", 3, 2, 4, 5), NetworkLayer("add", 0, 4, 4, 5)]
    # 9 x 2 x 4 multiply-accumulates, which take registers of 16 channels, 2 values read and 4
    # made at each of 25 pixels
    convolution = 25 * (72 * 1 + 9 * 16 * 16 * 0.5 + 2 * 10 + 4 * 100) + 1000
    addition = 25 * 4 * 7 + 3
    assert priced(prices, [(3, layers)]) == 3 * (convolution + addition)
    with pytest.raises(KeyError, match="pcc 5"):
        priced(prices, [(1, [NetworkLayer("pcc", 5, 2, 4, 5)])])


def test_seconds_and_milliseconds_by_hand():
    cost = DeviceCost(
        device="abacus", precision="float32", threads=1, batch=64, latency_batch=8,
        training={"add": [2.0, 1.0]}, latency={"add": [0.5, 1.0]},
        update={"pcc 3": [1.0, 0.5, 10.0]},
    )  # fmt: skip
    runs = [(2, [NetworkLayer("add", 0, 3, 3, 10)])]
    assert cost.seconds_an_image(runs) == pytest.approx(1e-6 * 2 * 601)
    # 9 x 2 x 4 weights, whose gradient is a matrix of 4 rows and 18 columns
    weights = [(1, [NetworkLayer("pcc", 3, 2, 4, 10)])]
    assert priced(cost.update, weights, update_terms) == 72 + 0.5 * 72 * 4 + 10
    assert cost.milliseconds(runs) == pytest.approx(1e-3 * 8 * 2 * 151)
    assert DeviceCost(**json.loads(json.dumps(cost.to_dict()))) == cost


def test_prices_are_found_from_layers_that_have_them():
    layers = sorted({layer for runs in networks() for _, of in runs for layer in of})
    times = [priced(TRUE, [(1, [layer])]) for layer in layers]
    found = fit_prices(layers, times)
    assert found.keys() == TRUE.keys()
    for runs in networks():
        assert priced(found, runs) == pytest.approx(priced(TRUE, runs), rel=1e-3)


def test_no_price_is_negative_whatever_was_measured():
    rng = np.random.default_rng(1)
    layers = sorted({layer for runs in networks() for _, of in runs for layer in of})
    found = fit_prices(layers, list(rng.uniform(1, 100, len(layers))))
    assert min(price for of in found.values() for price in of) >= 0


def test_layers_among_others_are_dearer_each_and_by_size():
    slower = {kind: [1.5 * p for p in of[:-1]] + [4.0 * of[-1]] for kind, of in TRUE.items()}
    runs = networks(10)
    found = among_others(TRUE, runs, [priced(slower, each) for each in runs])
    for kind, of in found.items():
        assert of == pytest.approx(slower[kind], rel=1e-6)


@pytest.mark.parametrize("kind", sorted(TRUE))
def test_every_kind_has_as_many_terms_as_prices(kind):
    layer = next(x for runs in networks() for _, of in runs for x in of if layer_kind(x) == kind)
    assert len(layer_terms(layer)) == len(TRUE[kind])
    assert layer_terms(layer)[-1] == 1.0


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_calibration_prices_every_block_of_the_space(version):
    tree = {
        "space": {"version": version, "max_index": 8},
        "network": {"filters": [4, 8], "repeats": 1},
        "recipe": {"batch": 8},
    }
    settings = settings_from_dict(tree)
    images = {"num_classes": 10, "in_channels": 1, "image_size": 8}
    request = Request(settings=settings.to_dict(), device="cpu", threads=1, **images)
    cost = calibrate(request, seconds=0.0)
    assert (cost.threads, cost.batch, cost.latency_batch) == (1, 8, 1)
    rng = np.random.default_rng(7)
    for _ in range(50):
        block = settings.space.build().sample(rng)
        runs = list(settings.network.layers(block, **images))
        assert cost.seconds_an_image(runs) > 0
        assert cost.milliseconds(runs) > 0
    small, large = (
        cost.seconds_an_image(list(network_layers(BLOCKS["plain"], **shape)))
        for shape in ({**NETWORK, "image_size": 8}, {**NETWORK, "image_size": 32})
    )
    assert small < large


def test_a_calibration_is_a_process():
    settings = settings_from_dict(
        {"network": {"filters": [4], "repeats": 1}, "recipe": {"batch": 2}}
    )
    request = Request(
        settings=settings.to_dict(), device="cpu", threads=1,
        num_classes=2, in_channels=1, image_size=4,
    )  # fmt: skip
    command = [sys.executable, "-m", "blockqnn.training.calibration", "0"]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert DeviceCost(**json.loads(done.stdout)).threads == 1
