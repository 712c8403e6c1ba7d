"""The networks as timm sees them: its registry, its feature extractor, its ways to load weights."""

import subprocess
import sys

import pytest
import timm
import torch
from timm.models import load_state_dict
from timm.models._features import FeatureListNet
from timm.optim import create_optimizer_v2, param_groups_layer_decay

from blockqnn.cost import network_cost
from blockqnn.errors import SettingsError
from blockqnn.network import build_network
from blockqnn.network.timm_networks import build_comparator
from blockqnn.network.weights import save_weights
from blockqnn.timm_model import load_pretrained  # the import registers the model
from blockqnn.zoo import BLOCKS

SMALL = {"block": "residual", "filters": (4, 6), "repeats": (2, 1), "num_classes": 5}
IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("block", ["S", str(BLOCKS["S"]), BLOCKS["S"]])
def test_create_model_takes_a_name_a_code_and_a_block(block):
    sizes = {"filters": (4, 8), "repeats": 2, "num_classes": 7, "skeleton": "imagenet"}
    network = timm.create_model("blockqnn", block=block, in_chans=1, **sizes)
    cost = network_cost(BLOCKS["S"], in_channels=1, image_size=32, **sizes)
    assert parameters(network) == cost.parameters
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


def test_by_default_it_is_the_published_network():
    with torch.device("meta"):
        network = timm.create_model("blockqnn")
    assert parameters(network) == 6_125_866
    assert "blockqnn" in timm.list_models()
    assert network.default_cfg["input_size"] == (3, 32, 32)


def test_the_same_seed_gives_the_weights_of_build_network():
    states = []
    for build in (
        lambda: timm.create_model("blockqnn", **SMALL),
        lambda: build_network(BLOCKS["residual"], **{k: SMALL[k] for k in list(SMALL)[1:]}),
    ):
        torch.manual_seed(5)
        states.append(build().state_dict())
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_rates_to_drop_reach_the_network():
    network = timm.create_model("blockqnn", drop_rate=0.3, drop_path_rate=0.2, **SMALL)
    assert network.drop_rate == 0.3
    assert network.stage2[0].drop_path.drop_prob == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("skeleton", "reductions"),
    [("cifar", [1, 2, 4, 8]), ("half", [2, 4, 8, 16]), ("imagenet", [4, 8, 16, 32])],
)
def test_features_are_a_map_a_stage(skeleton, reductions):
    """Channels of the residual block: the stage's filters, projected where they differ."""
    arguments = {"block": "residual", "filters": (2, 4, 8, 6), "repeats": 1, "skeleton": skeleton}
    extractor = timm.create_model("blockqnn", features_only=True, **arguments).eval()
    assert isinstance(extractor, FeatureListNet)
    assert extractor.feature_info.channels() == [2, 4, 8, 6]
    assert extractor.feature_info.reduction() == reductions
    images = torch.randn(2, 3, 64, 64)
    maps = extractor(images)
    assert [tuple(found.shape) for found in maps] == [
        (2, channels, 64 // reduction, 64 // reduction)
        for channels, reduction in zip((2, 4, 8, 6), reductions, strict=True)
    ]
    whole = timm.create_model("blockqnn", **arguments).eval()
    whole.load_state_dict(extractor.state_dict(), strict=False)
    torch.testing.assert_close(maps[-1].relu(), whole.forward_features(images))
    some = timm.create_model("blockqnn", features_only=True, out_indices=(0, -1), **arguments)
    assert some.feature_info.reduction() == [reductions[0], reductions[-1]]
    assert [found.shape[1] for found in some(images)] == [2, 6]


def test_without_classes_or_pooling_features_come_out():
    pooled = timm.create_model("blockqnn", **SMALL | {"num_classes": 0})
    assert pooled(IMAGES).shape == (2, pooled.num_features) == (2, 6)
    maps = timm.create_model("blockqnn", **SMALL | {"num_classes": 0}, global_pool="")
    assert maps(IMAGES).shape == (2, 6, 8, 8)
    both = timm.create_model("blockqnn", **SMALL, global_pool="catavgmax")
    assert both(IMAGES).shape == (2, 5)


def test_learning_rates_decay_layer_by_layer():
    """Stem, three blocks and head, from the head down."""
    network = timm.create_model("blockqnn", **SMALL)
    groups = param_groups_layer_decay(network, weight_decay=0.1, layer_decay=0.5)
    assert {group["lr_scale"] for group in groups} == {1.0, 0.5, 0.25, 0.125, 0.0625}
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    create_optimizer_v2(network, opt="sgd", lr=0.1, layer_decay=0.5)


@pytest.fixture
def saved(tmp_path):
    """A network for one channel, three classes, and its file with all metadata."""
    torch.manual_seed(0)
    sizes = {"filters": (4, 6), "repeats": (2, 1), "skeleton": "imagenet"}
    network = build_network(BLOCKS["inception"], num_classes=3, in_channels=1, **sizes).eval()
    metadata = {
        "block": str(BLOCKS["inception"]),
        "filters": "[4, 6]",
        "repeats": "[2, 1]",
        "skeleton": "imagenet",
        "num_classes": "3",
        "in_channels": "1",
        "image_size": "24",
        "classes": '["a", "b", "c"]',
        "mean": "[0.5]",
        "std": "[0.25]",
    }
    path = tmp_path / "weights.safetensors"
    save_weights(network, path, metadata)
    return network, path


def test_pretrained_weights_bring_all_that_is_needed(saved):
    network, path = saved
    overlay = {"file": str(path)}
    loaded = timm.create_model("blockqnn", pretrained=True, pretrained_cfg_overlay=overlay).eval()
    images = torch.randn(2, 1, 24, 24)
    assert torch.equal(loaded(images), network(images))
    config = timm.data.resolve_data_config(model=loaded)
    assert (config["input_size"], config["mean"], config["std"]) == ((1, 24, 24), (0.5,), (0.25,))
    assert loaded.pretrained_cfg["label_names"] == ("a", "b", "c")
    assert overlay == {"file": str(path)}


def test_pretrained_weights_for_other_classes_and_for_features(saved):
    network, path = saved
    loaded = timm.create_model(
        "blockqnn",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(path)},
        num_classes=9,
    ).eval()
    images = torch.randn(2, 1, 24, 24)
    assert loaded(images).shape == (2, 9)
    assert torch.equal(loaded.forward_features(images), network.forward_features(images))
    features = timm.create_model(
        "blockqnn",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(path)},
        features_only=True,
    ).eval()
    assert torch.equal(features(images)[-1].relu(), network.forward_features(images))


def test_load_pretrained_is_short_for_that(saved):
    network, path = saved
    loaded = load_pretrained(path, drop_rate=0.2).eval()
    images = torch.randn(2, 1, 24, 24)
    assert torch.equal(loaded(images), network(images))
    assert (loaded.drop_rate, loaded.pretrained_cfg["std"]) == (0.2, (0.25,))


def test_files_that_hold_no_block_are_refused(saved, tmp_path):
    _, path = saved
    content = bytearray(path.read_bytes())
    content[-1000] ^= 4
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(content)
    with pytest.raises(SettingsError, match=r"damaged.safetensors is damaged"):
        load_pretrained(damaged)
    sizes = {"num_classes": 3, "in_channels": 3, "image_size": 32}
    network = build_comparator("resnet10t", **sizes)
    other = tmp_path / "other.safetensors"
    save_weights(network, other, {"timm": "resnet10t"} | {k: str(v) for k, v in sizes.items()})
    with pytest.raises(SettingsError, match=r"holds timm's resnet10t: give weights of a block"):
        load_pretrained(other)


def test_a_checkpoint_path_is_loaded(saved):
    network, path = saved
    loaded = timm.create_model(
        "blockqnn",
        block="inception",
        filters=(4, 6),
        repeats=(2, 1),
        skeleton="imagenet",
        num_classes=3,
        in_chans=1,
        checkpoint_path=str(path),
    ).eval()
    images = torch.randn(2, 1, 24, 24)
    assert torch.equal(loaded(images), network(images))
    assert list(load_state_dict(str(path))) and not loaded.grad_checkpointing


def test_a_pretrained_cfg_is_kept():
    config = {"num_classes": 4, "input_size": (1, 8, 8), "mean": (0.1,), "std": (0.2,)}
    arguments = {"block": "plain", "filters": (4,), "repeats": 1}
    network = timm.create_model("blockqnn", pretrained_cfg=config, **arguments)
    assert network(torch.zeros(1, 1, 8, 8)).shape == (1, 4)
    assert network.pretrained_cfg["mean"] == (0.1,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": "T"}, r"block is 'T': layer 1: .*; give one of A, B, S"),
        ({"skeleton": "vgg"}, "skeleton is 'vgg': give cifar, half or imagenet"),
        ({"drop_path_rate": 1.5}, "drop_path is 1.5: give 0 to below 1"),
        (
            {"pretrained": True, "pretrained_cfg_overlay": {"file": "absent.safetensors"}},
            "absent.safetensors cannot be read",
        ),
    ],
)
def test_what_is_wrong_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        timm.create_model("blockqnn", **SMALL | change)


def test_one_import_registers_it():
    script = (
        "import timm, blockqnn.timm_model, sys\n"
        "network = timm.create_model('blockqnn', block='plain', filters=(4,), repeats=1)\n"
        "assert not {'prefect', 'mlflow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)
