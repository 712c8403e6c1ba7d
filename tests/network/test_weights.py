"""Weights on disk: what comes back, and what damaged and foreign files say."""

import json
import pickle
import resource
import struct
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import timm
import torch

import blockqnn.timm_model  # noqa: F401  # registers the networks
from blockqnn.errors import SettingsError
from blockqnn.network import build_network
from blockqnn.network.timm_networks import build_comparator
from blockqnn.network.weights import load_weights, save_weights
from blockqnn.space import Block
from blockqnn.zoo import BLOCKS

METADATA = {
    "label": "inception",
    "block": str(BLOCKS["inception"]),
    "filters": "[4, 6]",
    "repeats": "[2, 1]",
    "skeleton": "imagenet",
    "num_classes": "3",
    "in_channels": "1",
    "image_size": "24",
    "classes": '["a cat", "ein H\\u00fcndchen", "\\u732b"]',
    "mean": "[0.5]",
    "std": "[0.25]",
}


def trained_network():
    """A network whose batch norms have seen something."""
    torch.manual_seed(0)
    network = build_network(
        BLOCKS["inception"],
        filters=(4, 6),
        repeats=(2, 1),
        num_classes=3,
        in_channels=1,
        skeleton="imagenet",
        drop_path=0.2,
        dropout=0.1,
    )
    network(torch.randn(8, 1, 24, 24))
    return network.eval()


@pytest.fixture
def saved(tmp_path):
    network, path = trained_network(), tmp_path / "weights.safetensors"
    save_weights(network, path, METADATA)
    return network, path


def test_the_same_network_comes_back_ready_to_use(saved):
    network, path = saved
    loaded, metadata = load_weights(path)
    assert metadata == METADATA
    assert not loaded.training
    images = torch.randn(3, 1, 24, 24)
    assert torch.equal(loaded(images), network(images))
    assert [file.name for file in path.parent.iterdir()] == ["weights.safetensors"]


def test_the_same_weights_make_the_same_file_in_every_memory_layout(tmp_path):
    network = trained_network().to(memory_format=torch.channels_last)
    save_weights(network, tmp_path / "a", METADATA)
    save_weights(trained_network(), tmp_path / "b", dict(reversed(METADATA.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_tools_read_the_file(saved):
    network, path = saved
    arrays = safetensors.numpy.load_file(path)
    for name, tensor in network.state_dict().items():
        np.testing.assert_array_equal(arrays[name], tensor.numpy())


def test_a_timm_network_is_built_from_its_name(tmp_path):
    arguments = {"num_classes": 4, "in_channels": 3, "image_size": 32}
    network = build_comparator("resnet10t", **arguments).eval()
    metadata = {"timm": "resnet10t", **{name: str(value) for name, value in arguments.items()}}
    save_weights(network, tmp_path / "w.safetensors", metadata)
    loaded, _ = load_weights(tmp_path / "w.safetensors")
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(images), network(images))


def test_blocks_longer_than_the_paper_s_come_back(tmp_path):
    """As a search with a larger space.max_index finds them: 30 poolings, then the terminal."""
    code = "".join(f"({i},2,3,{i - 1},0)" for i in range(1, 31)) + "(31,7,0,0,0)"
    block = Block.parse(code, 64)
    sizes = {"num_classes": 3, "in_channels": 1}
    network = build_network(block, filters=(4,), repeats=1, **sizes).eval()
    metadata = METADATA | {"block": code, "filters": "[4]", "repeats": "1", "skeleton": "cifar"}
    save_weights(network, tmp_path / "w.safetensors", metadata)
    loaded, _ = load_weights(tmp_path / "w.safetensors")
    images = torch.randn(2, 1, 6, 6)
    assert torch.equal(loaded(images), network(images))
    by_timm = timm.create_model("blockqnn", block=code, filters=(4,), repeats=1)
    assert by_timm(torch.zeros(1, 3, 6, 6)).shape == (1, 10)


def test_a_fresh_process_with_only_the_package_loads_it(saved):
    network, path = saved
    script = (
        "import sys, torch, numpy\n"
        "from pathlib import Path\n"
        "from blockqnn.network.weights import load_weights\n"
        "network, _ = load_weights(Path(sys.argv[1]))\n"
        "print(network(torch.ones(1, 1, 24, 24)).tolist())\n"
        "assert not {'prefect', 'mlflow', 'timm'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    expected = network(torch.ones(1, 1, 24, 24)).tolist()
    assert json.loads(done.stdout)[0] == pytest.approx(expected[0], rel=1e-5)


def refused(path):
    with pytest.raises(SettingsError) as caught:
        load_weights(path)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text and "give" in text or "again" in text
    return text


def header_and_rest(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def rewrite(path, header, rest):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + rest)


@pytest.mark.parametrize("keep", [0, 5, 8, 300, -1])
def test_a_truncated_file_is_refused(saved, keep):
    _, path = saved
    path.write_bytes(path.read_bytes()[:keep])
    assert "cannot be read as safetensors" in refused(path)


def test_a_changed_bit_among_the_weights_is_noticed(saved):
    _, path = saved
    content = bytearray(path.read_bytes())
    content[-1000] ^= 4
    path.write_bytes(content)
    assert "is damaged" in refused(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"block": None}, "no 'block'"),
        ({"block": "(1,9,9,0,0)"}, "layer 1"),
        ({"filters": "[4, 8]"}, ".weight is torch.float32 ["),
        ({"filters": "[4"}, "delimiter"),
        ({"filters": "7"}, "not iterable"),
        ({"repeats": "[1]"}, "repeats is [1]"),
        ({"num_classes": "many"}, "invalid literal"),
        ({"skeleton": "vgg"}, "skeleton is 'vgg'"),
        ({"block": "(1,1,3,0,0)" * 9}, "layer 2"),
        ({"filters": "[40000, 40000]"}, "not torch.float32 [40000, 1, 3, 3]"),
        ({"filters": f"[{10**30}, 1]"}, "Overflow"),
        ({"repeats": f"[{10**12}, 1]"}, f"repeats is [{10**12}, 1], which its"),
        ({"num_classes": str(10**12)}, "not torch.float32 [1000000000000, "),
        ({"image_size": str(10**9)}, "image_size is 1000000000"),
        ({"timm": "resnet10t", "in_channels": str(10**9)}, "in_channels is 1000000000"),
        ({"timm": "resnet10t", "image_size": "-1"}, "image_size is -1"),
        ({"timm": "resnet10t:8-8-8-90000", "block": None}, "wider than its"),
        ({"timm": f"resnet10t:{10**30}-8-8-8", "block": None}, "wider than its"),
        ({"timm": "resnet10t:8-8", "block": None}, "give 4 widths"),
        ({"timm": "../../weights", "block": None}, "timm does not know"),
        ({"timm": "hf-hub:somebody/something", "block": None}, "timm does not know"),
    ],
)
def test_other_metadata_are_refused(saved, change, words):
    _, path = saved
    header, rest = header_and_rest(path)
    found = header["__metadata__"] | change
    header["__metadata__"] = {name: text for name, text in found.items() if text is not None}
    rewrite(path, header, rest)
    text = refused(path)
    assert "does not hold a network of blockqnn" in text and words in text


def test_weights_of_another_kind_are_refused(saved):
    """Half precision, made by another tool, which left the metadata but not the checksum."""
    network, path = saved
    state = {name: value.half() for name, value in network.state_dict().items()}
    safetensors.torch.save_file(state, path, METADATA)
    assert "stem.0.weight is torch.float16 [4, 1, 3, 3], not torch.float32" in refused(path)


def test_a_loaded_network_is_its_own_and_can_be_trained_on(saved):
    network, path = saved
    loaded, _ = load_weights(path)
    with path.open("r+b") as file:  # in place, as a careless copy does
        file.write(b"\0" * path.stat().st_size)
    images = torch.randn(3, 1, 24, 24)
    assert torch.equal(loaded(images), network(images))
    loaded.train()(images).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_foreign_files_are_refused_and_nothing_in_them_is_run(tmp_path):
    """Safetensors of somebody else, a pickle that would leave a trace, text, nothing, a folder."""
    foreign = tmp_path / "foreign.safetensors"
    safetensors.numpy.save_file({"weight": np.ones(3, dtype=np.float32)}, foreign)
    assert "does not hold a network of blockqnn" in refused(foreign)

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "trace"), "w"))

    for content in (pickle.dumps(Trap()), b"not weights at all" * 10):
        path = tmp_path / "other.safetensors"
        path.write_bytes(content)
        refused(path)
    torch.save({"weight": Trap()}, tmp_path / "torch.pt")
    refused(tmp_path / "torch.pt")
    assert not (tmp_path / "trace").exists()
    assert "No such file" in refused(tmp_path / "absent.safetensors")
    refused(tmp_path)


def test_a_full_disk_is_an_os_error_and_leaves_nothing(saved, tmp_path):
    network, path = saved
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        for target in (path, tmp_path / "new.safetensors"):
            with pytest.raises(OSError, match="File too large"):
                save_weights(network, target, METADATA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
