"""Costs from the code equal those of the built network, counted by torch itself."""

import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from blockqnn.cost import Cost, network_cost
from blockqnn.network import build_network
from blockqnn.space import V2, Block, Layer, Op, Space
from blockqnn.zoo import BLOCKS

CIFAR = {"filters": (32, 64, 128), "repeats": 4, "num_classes": 100}
IMAGENET = {
    "filters": (64, 128, 256, 512),
    "repeats": 3,
    "num_classes": 1000,
    "image_size": 224,
    "skeleton": "imagenet",
}
SEEDS = st.integers(0, 2**32)
SEPARABLES = Block.parse("(1,8,3,0,0)(2,8,5,1,0)(3,6,0,1,2)(4,7,0,0,0)")


class Outputs(TorchDispatchMode):
    """Sums the elements that the counted operations put out, written in place or not."""

    COUNTED = (
        "relu", "relu_", "convolution", "native_batch_norm", "max_pool2d_with_indices",
        "avg_pool2d", "mean", "_adaptive_avg_pool2d", "add", "cat", "addmm",
    )  # fmt: skip

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        output = result[0] if isinstance(result, tuple) else result
        # Batch norm adds one to its step counter: a scalar, no activation.
        if name in self.COUNTED and output.dim() > 0:
            self.elements += output.numel()
        return result


def counted(block, *, in_channels=3, image_size=32, **arguments):
    """The cost that torch counts on the network itself, built without memory.

    Two images, counted half: batch norm refuses to train on one pixel of one image.
    """
    with torch.device("meta"):
        net = build_network(block, in_channels=in_channels, **arguments)
        images = torch.empty(2, in_channels, image_size, image_size)
        outputs = Outputs()
        with FlopCounterMode(display=False) as flops, outputs:
            net(images)
    return Cost(
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        macs=flops.get_total_flops() // 4,
        activation_bytes=4 * outputs.elements // 2,
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=SEEDS,
    filters=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    repeats=st.integers(1, 2),
    num_classes=st.integers(1, 20),
    in_channels=st.integers(1, 4),
    image_size=st.integers(16, 33),
    skeleton=st.sampled_from(["cifar", "half", "imagenet"]),
)
def test_random_blocks(seed, **arguments):
    block = Space(23).sample(np.random.default_rng(seed))
    cost = network_cost(block, **arguments)
    assume(cost.parameters < 10**9)
    assert cost == counted(block, **arguments)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("arguments", [CIFAR, IMAGENET], ids=["cifar", "imagenet"])
def test_published_blocks_at_full_size(name, arguments):
    assert network_cost(BLOCKS[name], **arguments) == counted(BLOCKS[name], **arguments)


@pytest.mark.parametrize("name", [*BLOCKS, "separables"])
def test_activation_bytes_bound_what_training_keeps(name):
    arguments = {"filters": (8, 16), "repeats": 2, "num_classes": 10}
    block = BLOCKS.get(name, SEPARABLES)
    net = build_network(block, **arguments)
    own = {parameter.data_ptr() for parameter in net.parameters()}
    kept = {}

    def keep(tensor):
        if tensor.data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no address recurs
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net(torch.randn(4, 3, 16, 16))
    kept_bytes = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 4
    bound = network_cost(block, image_size=16, **arguments).activation_bytes
    assert 0.5 * bound < kept_bytes < bound


def test_a_separable_block_by_hand():
    """8x8 grey images, 2 filters, one stage of one block, 10 classes."""
    cost = network_cost(
        SEPARABLES, filters=(2,), repeats=1, num_classes=10, in_channels=1, image_size=8
    )
    stem, small, large, linear = 9 * 1 * 2, 3 * 3 * 2 + 2 * 2, 5 * 5 * 2 + 2 * 2, 4 * 10
    assert cost.parameters == stem + 4 + (small + 4) + (large + 4) + linear + 10
    assert cost.macs == 64 * (stem + small + large) + linear
    # 2 wide: stem 2 maps, two separable convolutions 4 each; 4 wide: concat, last ReLU
    assert cost.activation_bytes == 4 * (64 * (2 * (2 + 8) + 4 * 2) + 4 + 10)


@settings(max_examples=40, deadline=None)
@given(
    seed=SEEDS,
    filters=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    repeats=st.integers(1, 3),
    skeleton=st.sampled_from(["cifar", "half", "imagenet"]),
    connections=st.sampled_from(["none", "shortcut", "concat"]),
)
def test_random_connected_blocks_of_v2(seed, **arguments):
    assume(arguments["connections"] != "concat" or arguments["repeats"] > 1)
    block = V2.sample(np.random.default_rng(seed))
    assert network_cost(block, num_classes=7, **arguments) == counted(
        block, num_classes=7, **arguments
    )


def test_a_block_that_widens_at_every_repeat():
    block = Block.parse("(1,4,0,0,0)(2,1,3,1,0)(3,4,0,1,0)(4,7,0,0,0)")
    arguments = CIFAR | {"repeats": (3, 1, 2)}
    assert network_cost(block, **arguments) == counted(block, **arguments)


def test_a_residual_block_by_hand():
    """8x8 grey images, 2 filters, one stage of one block, 10 classes."""
    cost = network_cost(
        BLOCKS["residual"], filters=(2,), repeats=1, num_classes=10, in_channels=1, image_size=8
    )
    stem, convolution, linear = 9 * 1 * 2, 9 * 2 * 2, 2 * 10
    assert cost.parameters == stem + 4 + 2 * (convolution + 4) + linear + 10
    assert cost.macs == 64 * (stem + 2 * convolution) + linear
    # stem 2 maps, two PCCs 3 each, add 1, last ReLU 1, all 2 wide; then the average and the logits
    assert cost.activation_bytes == 4 * (64 * 2 * (2 + 6 + 1 + 1) + 2 + 10)


@pytest.mark.parametrize(
    ("name", "arguments", "parameters"),
    [
        ("S", {"repeats": 2, "num_classes": 10}, 6.126e6),
        ("S", {"repeats": 2}, 6.195e6),
        ("S", {"filters": (80, 160, 320), "repeats": (3, 2, 2), "num_classes": 10}, 39.33e6),
    ],
)
def test_parameters_of_the_published_networks(name, arguments, parameters):
    cost = network_cost(BLOCKS[name], **CIFAR | arguments)
    assert cost.parameters == pytest.approx(parameters, rel=1e-4)


def test_absurd_widths_are_counted_exactly():
    """Concats of the last two layers: widths grow like Fibonacci numbers, block after block."""
    layers = [Layer(1, Op.CONV, 3, 0, 0), Layer(2, Op.CONV, 3, 1, 0)]
    layers += [Layer(index, Op.CONCAT, 0, index - 2, index - 1) for index in range(3, 22)]
    layers += [Layer(22, Op.CONV, 1, 21, 0), Layer(23, Op.TERMINAL, 0, 0, 0)]
    narrow_again = network_cost(Block(tuple(layers)), **CIFAR)
    widest = 10946 * 32  # the 21st Fibonacci number
    assert narrow_again.parameters > widest * 32
    layers[21] = Layer(22, Op.CONCAT, 0, 20, 21)
    assert network_cost(Block(tuple(layers)), **CIFAR).parameters > narrow_again.parameters
    wide = network_cost(BLOCKS["S"], **CIFAR | {"filters": (10**30,)})
    assert wide.parameters > 10**60 and isinstance(wide.parameters, int)


def test_repeats_may_be_given_for_each_stage():
    assert network_cost(BLOCKS["B"], **CIFAR) == network_cost(
        BLOCKS["B"], **CIFAR | {"repeats": [4, 4, 4]}
    )


@pytest.mark.parametrize(
    ("skeleton", "size", "message"),
    [
        ("cifar", 3, "image_size is 3: 2 poolings need 4 pixels or more"),
        ("imagenet", 15, "image_size is 15: 4 poolings need 16 pixels or more"),
        ("cifar", 0, "image_size is 0: 2 poolings need 4 pixels or more"),
    ],
)
def test_images_too_small_for_the_poolings(skeleton, size, message):
    with pytest.raises(ValueError, match=message):
        network_cost(BLOCKS["S"], **CIFAR, image_size=size, skeleton=skeleton)
    network_cost(BLOCKS["S"], **CIFAR, image_size=16, skeleton=skeleton)


def test_cost_takes_well_under_a_millisecond():
    rng = np.random.default_rng(0)
    blocks = [Space(23).sample(rng) for _ in range(50)]
    started = time.perf_counter()
    for block in blocks:
        network_cost(block, **CIFAR)
    assert (time.perf_counter() - started) / len(blocks) < 1e-3  # measured: 0.15 ms


def test_cost_needs_no_torch():
    code = "import sys, blockqnn.cost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
