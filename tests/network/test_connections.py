"""Blocks connected beyond their order: what is read, what it costs, where it is kept."""

import pytest
import timm
import torch
from torch import nn

import blockqnn.timm_model  # noqa: F401  # registers the network
from blockqnn.cost import network_cost
from blockqnn.network import build_network
from blockqnn.network.cells import Pcc
from blockqnn.network.export import export_program
from blockqnn.network.stage import Shortcut
from blockqnn.network.weights import load_weights, save_weights
from blockqnn.params import settings_from_dict
from blockqnn.search.candidate_files import identity
from blockqnn.space import Block
from blockqnn.timm_model import load_pretrained
from blockqnn.zoo import BLOCKS

CONNECTED = pytest.mark.parametrize("connections", ["shortcut", "concat"])
SIZES = {"filters": (4, 6), "repeats": (3, 2), "num_classes": 5}
FORK = Block.parse("(1,4,0,0,0)(2,1,1,1,0)(3,8,3,1,0)(4,7,0,0,0)")
"""Two leaves: twice as wide as its filters."""


def by_hand(net, images):
    """Logits, step by step as `blockqnn.space.skeleton` says, of a network without eval."""

    def block_of(part):
        return part.block if isinstance(part, Shortcut) else part

    maps = net.stem(images)
    for number in (1, 2):
        outputs = [maps if number == 1 else nn.functional.max_pool2d(maps, 2)]
        for part in getattr(net, f"stage{number}"):
            if isinstance(part, Shortcut):
                made, entered = block_of(part)(outputs[-1]), outputs[-1]
                if made.shape[1] != entered.shape[1]:
                    _, projection = part.add.projections
                    assert [type(p).__name__ for p in projection] == [
                        "ReLU", "Convolution", "BatchNorm2d"
                    ]  # fmt: skip
                    assert projection[1].weight.shape[2:] == (1, 1)
                    entered = projection(entered)
                outputs.append(made + entered)
            else:
                outputs.append(part(torch.cat(outputs[-2:], 1)))
        maps = outputs[-1]
    pooled = maps.relu().mean((2, 3))
    return nn.functional.linear(pooled, net.head[3].weight, net.head[3].bias)


@CONNECTED
@pytest.mark.parametrize("block", [BLOCKS["residual"], FORK, Block.parse("(1,7,0,0,0)")], ids=str)
def test_what_blocks_read(connections, block):
    torch.manual_seed(0)
    net = build_network(block, **SIZES, connections=connections).double()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(net(images), by_hand(net, images))
    assert net.feature_info[-1]["num_chs"] == net.num_features == net.head[3].in_features


def test_widths_of_connected_blocks_by_hand():
    """The fork makes 2F from any width; what it reads and what is projected differs."""
    stages = [
        [(part.block.layers["2"][1].in_channels, part.out_channels) for part in stage]
        for net in [build_network(FORK, **SIZES, connections="shortcut")]
        for stage in (net.stage1, net.stage2)
    ]
    assert stages == [[(4, 8), (8, 8), (8, 8)], [(8, 12), (12, 12)]]
    net = build_network(FORK, **SIZES, connections="shortcut")
    projected = [isinstance(p.add.projections[1], Pcc) for p in [*net.stage1, *net.stage2]]
    assert projected == [True, False, False, True, False]
    net = build_network(FORK, **SIZES, connections="concat")
    read = [part.layers["2"][1].in_channels for part in [*net.stage1, *net.stage2]]
    assert read == [4, 4 + 8, 8 + 8, 8, 8 + 12]


def test_costs_by_hand():
    """8x8 grey images, 2 filters, two 1x1 convolutions with two leaves, twice; 10 classes."""
    block = Block.parse("(1,4,0,0,0)(2,1,1,1,0)(3,1,1,1,0)(4,7,0,0,0)")
    sizes = {"filters": (2,), "repeats": 2, "num_classes": 10, "in_channels": 1, "image_size": 8}
    costs = {
        name: network_cost(block, **sizes, connections=name)
        for name in ("none", "shortcut", "concat")
    }
    stem, first, second, linear = 9 * 2, 2 * (2 * 2), 2 * (4 * 2), 4 * 10
    norms = 4 + 4 * 4  # stem, four convolutions
    assert costs["none"].parameters == stem + first + second + norms + linear + 10
    assert costs["none"].macs == 64 * (stem + first + second) + linear
    # a 1x1 projection from 2 to 4 and its norm; the second block reads 4 and makes 4
    assert costs["shortcut"].parameters == costs["none"].parameters + 2 * 4 + 8
    assert costs["shortcut"].macs == costs["none"].macs + 64 * 2 * 4
    # ReLU 2, convolution and norm 4 each; two sums of 4
    more = costs["shortcut"].activation_bytes - costs["none"].activation_bytes
    assert more == 4 * 64 * (2 + 2 * 4 + 2 * 4)
    # the second block reads 2 + 4: two convolutions of 2 more channels, two wider ReLUs, a concat
    assert costs["concat"].parameters == costs["none"].parameters + 2 * (2 * 2)
    assert costs["concat"].macs == costs["none"].macs + 64 * 2 * (2 * 2)
    assert costs["concat"].activation_bytes - costs["none"].activation_bytes == 4 * 64 * (2 * 2 + 6)


@pytest.mark.parametrize("build", [build_network, network_cost])
def test_what_has_no_meaning_is_refused(build):
    with pytest.raises(ValueError, match="connections is 'dense': give none, shortcut or concat"):
        build(FORK, **SIZES, connections="dense")
    message = "connections is 'concat', of blocks within a stage, but repeats is 1: give 2 or more"
    with pytest.raises(ValueError, match=message):
        build(FORK, **SIZES | {"repeats": 1}, connections="concat")
    build(FORK, **SIZES | {"repeats": (1, 2)}, connections="concat")
    build(FORK, **SIZES | {"repeats": 1}, connections="shortcut")


def test_without_connections_weights_have_the_names_they_always_had():
    net = build_network(BLOCKS["plain"], filters=(4, 6), repeats=(2, 1), num_classes=5)
    names = [name for name, _ in net.named_parameters()]
    blocks = ["stage1.0", "stage1.1", "stage2.0"]
    parts = ["1.weight", "2.weight", "2.bias"]
    assert names == [
        *("stem.0.weight", "stem.1.weight", "stem.1.bias"),
        *(f"{block}.layers.{layer}.{part}" for block in blocks for layer in "12" for part in parts),
        *("head.3.weight", "head.3.bias"),
    ]
    maps = torch.randn(2, 4, 8, 8)
    net.eval()
    assert torch.equal(net.stage1(maps), net.stage1[1](net.stage1[0](maps)))


@CONNECTED
def test_checkpointing_recomputes_and_changes_nothing(connections):
    images = torch.randn(4, 3, 8, 8)
    outcomes = []
    for enable in (False, True):
        torch.manual_seed(1)
        net = build_network(FORK, **SIZES, connections=connections)
        net.set_grad_checkpointing(enable)
        net(images).logsumexp(1).sum().backward()
        outcomes.append((net.state_dict(), [parameter.grad for parameter in net.parameters()]))
    torch.testing.assert_close(*outcomes, rtol=0, atol=0)


@CONNECTED
def test_a_file_of_weights_says_how_blocks_are_connected(connections, tmp_path):
    torch.manual_seed(0)
    net = build_network(FORK, **SIZES, connections=connections)
    images = torch.randn(4, 3, 8, 8)
    net(images)
    net.eval()
    metadata = {
        "block": str(FORK),
        "filters": "[4, 6]",
        "repeats": "[3, 2]",
        "skeleton": "cifar",
        "connections": connections,
        "num_classes": "5",
        "in_channels": "3",
        "image_size": "8",
    }
    path = tmp_path / "weights.safetensors"
    save_weights(net, path, metadata)
    loaded, _ = load_weights(path)
    assert torch.equal(loaded(images), net(images))
    assert torch.equal(load_pretrained(path).eval()(images), net(images))
    export_program(net, tmp_path / "net.pt2", images)


@CONNECTED
def test_timm_builds_it_and_takes_features(connections):
    arguments = {"block": str(FORK), "connections": connections, **SIZES}
    whole = timm.create_model("blockqnn", **arguments).eval()
    assert (
        sum(p.numel() for p in whole.parameters())
        == network_cost(FORK, **SIZES, connections=connections).parameters
    )
    extractor = timm.create_model("blockqnn", features_only=True, **arguments).eval()
    whole.load_state_dict(extractor.state_dict(), strict=False)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(extractor(images)[-1].relu(), whole.forward_features(images))


def test_work_begun_before_there_were_connections_keeps_its_identity():
    """The digest was taken before the setting was there."""
    tree = {"data": {"name": "digits"}, "network": {"filters": [8, 12], "repeats": 2}}
    plain = identity(BLOCKS["S"], settings_from_dict(tree), "images")
    assert plain == "ee76c81ba7685c4db28230cfbeb95b0c7ccef739bcb783e0a5c136b4f1b2533a"
    tree["network"]["connections"] = "none"
    assert identity(BLOCKS["S"], settings_from_dict(tree), "images") == plain
    others = set()
    for connections in ("shortcut", "concat"):
        tree["network"]["connections"] = connections
        others.add(identity(BLOCKS["S"], settings_from_dict(tree), "images"))
    assert len(others | {plain}) == 3
