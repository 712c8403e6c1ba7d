"""Exported networks: the same outputs in ONNX Runtime and as a reloaded program."""

import json
import resource
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from blockqnn.errors import SettingsError, UserError
from blockqnn.network import build_network
from blockqnn.network.export import export_command, export_onnx, export_program
from blockqnn.network.timm_networks import build_comparator
from blockqnn.network.weights import save_weights
from blockqnn.zoo import BLOCKS
from flows.cli import main

BOTH = pytest.mark.parametrize(
    ("export", "name"), [(export_onnx, "net.onnx"), (export_program, "net.pt2")]
)


def network_of(block, **arguments):
    """A network with batch norms that have seen something, still in training mode."""
    torch.manual_seed(0)
    sizes = {"filters": (4, 6), "repeats": (2, 1), "num_classes": 5, "in_channels": 1}
    network = build_network(BLOCKS[block], **sizes | arguments)
    network(torch.randn(8, 1, 16, 16))
    return network


def loaded(path):
    """The file as a function of images, by the tools that users have."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    session = onnxruntime.InferenceSession(path)
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, logits.name) == ("images", "logits")
    return lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])


@BOTH
@pytest.mark.parametrize("count", [1, 3])
def test_outputs_are_those_of_the_network_for_any_number_of_images(export, name, count, tmp_path):
    network = network_of("S", skeleton="imagenet", drop_path=0.5, dropout=0.5)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    path = tmp_path / name
    export(network, path, torch.randn(count, 1, 16, 16))
    assert network.training and [file.name for file in tmp_path.iterdir()] == [name]
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    program = loaded(path)
    network.eval()
    for images in (torch.randn(number, 1, 16, 16) for number in (1, 2, 7)):
        torch.testing.assert_close(program(images), network(images), rtol=1e-4, atol=1e-4)


@BOTH
def test_a_comparator_is_exported_too(export, name, tmp_path):
    network = build_comparator("resnet10t", num_classes=3, in_channels=3, image_size=32).eval()
    export(network, tmp_path / name, torch.randn(2, 3, 32, 32))
    images = torch.randn(5, 3, 32, 32)
    torch.testing.assert_close(
        loaded(tmp_path / name)(images), network(images), rtol=1e-4, atol=1e-4
    )


def test_exported_graphs_are_made_of_standard_operators(tmp_path):
    export_onnx(network_of("inception"), tmp_path / "net.onnx", torch.randn(2, 1, 16, 16))
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    export_program(network_of("inception"), tmp_path / "net.pt2", torch.randn(2, 1, 16, 16))
    nodes = torch.export.load(tmp_path / "net.pt2").graph.nodes
    targets = {str(node.target) for node in nodes if node.op == "call_function"}
    assert "aten.cat.default" in targets
    assert all(target.startswith(("aten.", "<built-in")) for target in targets)


class Moody(nn.Module):
    """Outputs that depend on something a traced program does not see."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        return self.linear(images.flatten(1)) * self.calls


@BOTH
def test_other_outputs_are_refused_before_the_file_gets_its_name(export, name, tmp_path):
    with pytest.raises(UserError, match="was not written: in a batch of 1 its outputs differ"):
        export(Moody(), tmp_path / name, torch.randn(2, 1, 2, 2))
    assert not list(tmp_path.iterdir())


@BOTH
def test_a_full_disk_is_an_os_error_and_leaves_nothing(export, name, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            export(network_of("residual"), tmp_path / name, torch.randn(2, 1, 16, 16))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def training(tmp_path):
    """The directory of a training that has ended."""
    directory = tmp_path / "training"
    directory.mkdir()
    metadata = {
        "block": str(BLOCKS["residual"]),
        "filters": "[4, 6]",
        "repeats": "[2, 1]",
        "skeleton": "cifar",
        "num_classes": "5",
        "in_channels": "1",
        "image_size": "16",
        "classes": '["a", "b", "c", "d", "\u732b"]',
    }
    network = network_of("residual").eval()
    save_weights(network, directory / "weights.safetensors", metadata)
    return network, directory, metadata


@pytest.mark.parametrize("name", ["net.onnx", "net.pt2"])
def test_the_command_exports_a_training_or_its_weights(training, name, tmp_path):
    network, directory, metadata = training
    images = torch.randn(3, 1, 16, 16)
    for source in (directory, directory / "weights.safetensors"):
        to = tmp_path / "new" / source.name / name
        export_command(source, to)
        torch.testing.assert_close(loaded(to)(images), network(images), rtol=1e-4, atol=1e-4)
    if to.suffix == ".onnx":
        assert {prop.key: prop.value for prop in onnx.load(to).metadata_props} == metadata
    else:
        files = dict.fromkeys(metadata, "")
        torch.export.load(to, extra_files=files)
        assert files == metadata


def test_the_command_says_what_is_wrong(training, tmp_path):
    _, directory, _ = training
    with pytest.raises(SettingsError, match=r"--to is .*net.h5: give a name that ends in .onnx or"):
        export_command(directory, tmp_path / "net.h5")
    with pytest.raises(SettingsError, match=r"weights.safetensors cannot be read .*No such file"):
        export_command(tmp_path, tmp_path / "net.onnx")


def test_without_onnx_one_sentence_names_the_extra(training, tmp_path):
    _, directory, _ = training
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "sys.modules['onnxruntime'] = None  # as good as not installed\n"
        "from blockqnn.network.export import export_command\n"
        "from blockqnn.errors import SettingsError\n"
        "export_command(Path(sys.argv[1]), Path(sys.argv[2]) / 'net.pt2')\n"
        "try:\n"
        "    export_command(Path(sys.argv[1]), Path(sys.argv[2]) / 'net.onnx')\n"
        "except SettingsError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(directory), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("\n") == 1
    assert "pip install 'blockqnn[export]'" in done.stdout
    assert (tmp_path / "net.pt2").exists() and not (tmp_path / "net.onnx").exists()


def test_onnx_runtime_alone_gives_the_predictions(training, tmp_path):
    """What a user does on a machine without torch."""
    network, directory, _ = training
    export_command(directory, tmp_path / "net.onnx")
    images = np.random.default_rng(0).normal(size=(4, 1, 16, 16)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    script = (
        "import json, sys, numpy, onnxruntime\n"
        "session = onnxruntime.InferenceSession(sys.argv[1] + '/net.onnx')\n"
        "images = numpy.load(sys.argv[1] + '/images.npy')\n"
        "print(json.dumps(session.run(None, {'images': images})[0].argmax(1).tolist()))\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == network(torch.from_numpy(images)).argmax(1).tolist()


def test_blockqnn_export_on_the_command_line(training, tmp_path, capsys):
    network, directory, _ = training
    to = tmp_path / "new" / "net.pt2"
    assert main(["export", str(directory), "--to", str(to)]) == 0
    images = torch.randn(3, 1, 16, 16)
    torch.testing.assert_close(loaded(to)(images), network(images), rtol=1e-4, atol=1e-4)
    assert main(["export", str(directory), "--to", str(tmp_path / "net.h5")]) == 2
    (directory / "file").touch()
    assert main(["export", str(directory), "--to", str(directory / "file" / "net.pt2")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and all(line.startswith("blockqnn: ") for line in errors)
