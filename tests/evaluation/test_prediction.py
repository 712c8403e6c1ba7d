"""New pictures are judged as test images in memory and on disk were, by exported networks too."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_images import CPU, settings

from blockqnn.data.dataset import load
from blockqnn.data.streamed.stream import open_stream
from blockqnn.network import build_network
from blockqnn.network.export import export_command
from blockqnn.network.weights import save_weights
from blockqnn.settings import DataSettings
from blockqnn.zoo import BLOCKS
from flows.cli import main

SIZE = 16
CLASSES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Train and val of three classes: noise of odd shapes, one of it grey, one turned."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in CLASSES:
            folder = root / part / name
            folder.mkdir(parents=True)
            for number, (height, width) in enumerate(((20, 31), (16, 16), (40, 22), (90, 64))):
                pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
                image = Image.fromarray(pixels)
                exif = Image.Exif()
                exif[0x0112] = 6 if number == 2 else 1
                image = image.convert("L") if number == 1 else image
                image.save(folder / f"{number}.png", exif=exif)
    return root


def saved(directory, mean, std, **facts):
    """A network in a training's directory; its metadata as a final training writes them."""
    torch.manual_seed(0)
    shape = {"filters": [4, 8], "repeats": 1, "skeleton": "cifar"}
    network = build_network(BLOCKS["plain"], num_classes=3, **shape).eval()
    metadata = {"block": str(BLOCKS["plain"]), **shape, "num_classes": 3, "in_channels": 3}
    metadata |= {"image_size": SIZE, "classes": CLASSES, "mean": mean, "std": std, **facts}
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
    save_weights(network, directory / "weights.safetensors", texts)
    return network


def predicted(capsys, *arguments, status=0):
    """What `blockqnn predict --json` says."""
    assert main(["predict", *map(str, arguments), "--top", "3", "--json"]) == status
    return json.loads(capsys.readouterr().out)


def agree(rows, expected):
    """Rows of `predict` against probabilities in the order of the files."""
    found = [[row["classes"][name] for name in CLASSES] for row in rows]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for row in rows:
        assert list(row["classes"].values()) == sorted(row["classes"].values(), reverse=True)


def test_images_that_were_in_memory(root, tmp_path, capsys):
    data = load(DataSettings(name="folder", root=str(root), image_size=SIZE, holdout=0.3), 0)
    mean, std = ((moment.flatten() / 255).tolist() for moment in (data.mean, data.std))
    network = saved(tmp_path, mean, std, crop=1.0)
    with torch.no_grad():
        expected = network(data.normalised(data.test.images)).softmax(1)
    hidden = root / "val" / "cat" / "._0.png"  # as a Macintosh leaves it
    hidden.write_bytes(b"resource fork")
    agree(predicted(capsys, tmp_path, root / "val"), expected)
    export_command(tmp_path, tmp_path / "net.onnx")
    capsys.readouterr()
    agree(predicted(capsys, tmp_path / "net.onnx", root / "val"), expected)


def test_images_that_were_read_from_disk(root, tmp_path, capsys):
    stream = open_stream(settings(root, image_size=SIZE), 0)
    network = saved(tmp_path, stream.mean, stream.std, crop=0.875)
    images = torch.cat([images for images, _ in stream.test_batches(CPU)])
    with torch.no_grad():
        expected = network(images).softmax(1)
    agree(predicted(capsys, tmp_path / "weights.safetensors", root / "val"), expected)


def test_a_person_reads_a_line_a_picture(root, tmp_path, capsys):
    saved(tmp_path, [0.5] * 3, [0.2] * 3)
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"no picture")
    files = [root / "val" / "cat" / "0.png", damaged, root / "val" / "owl" / "3.png"]
    assert main(["predict", str(tmp_path), *map(str, files), "--top", "2"]) == 1
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert [Path(line.split()[0]) for line in lines] == files
    assert lines[0].count("%") == lines[2].count("%") == 2 and lines[1].split()[1] == "-"
    assert f"{damaged} is not a readable image (of no known format)" in shown.err
    [row] = predicted(capsys, tmp_path, damaged, status=1)
    assert row == {"file": str(damaged), "classes": {}, "error": "of no known format"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.safetensors", "."], "nowhere.safetensors cannot be read"),
        (["junk.onnx", "."], "junk.onnx is not a readable ONNX file"),
        (["net", "nowhere.png"], "nowhere.png is not there: name images"),
        (["net", "empty"], "empty has no images (.jpg"),
        (["net-without-moments", "a.png"], "does not say how images are prepared for it"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    for name in ("net", "net-without-moments", "empty"):
        Path(name).mkdir()
    saved(Path("net"), [0.5] * 3, [0.2] * 3)
    saved(Path("net-without-moments"), "none", "none")
    Path("junk.onnx").write_bytes(b"junk")
    Image.new("RGB", (9, 9)).save("a.png")
    assert main(["predict", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_export_says_what_it_wrote(tmp_path, capsys):
    saved(tmp_path, [0.5] * 3, [0.2] * 3)
    assert main(["export", str(tmp_path), "--to", str(tmp_path / "net.onnx")]) == 0
    said = capsys.readouterr().out
    assert "images (batch, 3, 16, 16) in float32, pixels from 0 to 1 less mean [0.5, 0.5" in said
    assert "logits (batch, 3)" in said
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(tmp_path / "net.onnx").graph
    axes = [
        graph.input[0].type.tensor_type.shape.dim[0],
        graph.output[0].type.tensor_type.shape.dim[0],
    ]
    assert [axis.dim_param for axis in axes] == ["batch", "batch"]
