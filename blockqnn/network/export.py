"""Trained networks for other programs: ONNX, and torch.export's .pt2.

Either takes any number of images, (N, C, H, W) float32, normalised as the metadata say, and returns
(N, classes) logits. No file is written whose program does not give the network's outputs.
"""

import io
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blockqnn.errors import SettingsError, UserError
from blockqnn.network.timm_networks import evaluating
from blockqnn.network.weights import load_weights
from blockqnn.storage import write_atomically

_RELATIVE = 1e-3
"""Share of an output by which a program's may differ: it may add numbers in another order."""
_ABSOLUTE = 1e-4
"""Share of the largest output by which any output of a program may differ besides."""


def export_program(
    network: nn.Module, path: Path, example: Tensor, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the network as a `torch.export` program, atomically; `torch.export.load` reads it.

    `example` are images (N, C, H, W) like those to come. Each of the `metadata` becomes an extra
    file in the file. Raises `UserError` when the program's outputs differ, and OSError.
    """
    content = io.BytesIO()
    with evaluating(network):
        torch.export.save(_traced(network, example), content, extra_files=dict(metadata or {}))
        program = torch.export.load(io.BytesIO(content.getvalue())).module()
        _compare(network, program, path, example)
    write_atomically(path, lambda file: file.write(content.getbuffer()))


def export_onnx(
    network: nn.Module, path: Path, example: Tensor, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the network as ONNX with input `images` and output `logits`, atomically.

    `example` are images (N, C, H, W) like those to come. `metadata` become the model's properties.
    Raises `UserError` when ONNX Runtime's outputs differ, `SettingsError` when a package of the
    extra `export` is not installed, and OSError.
    """
    try:
        names = ("onnx", "onnxruntime", "onnxscript")  # torch writes ONNX with the last
        onnx, onnxruntime, _ = map(import_module, names)
    except ImportError as error:
        raise SettingsError(
            f"{path} needs a package that is not installed ({error}): "
            "pip install 'blockqnn[export]'"
        ) from None
    with evaluating(network):
        exported = torch.onnx.export(
            _traced(network, example),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),
            dynamo=True,
            verbose=False,
        )
        assert exported is not None
        model = exported.model_proto
        onnx.helper.set_model_props(model, dict(metadata or {}))
        content = model.SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

        def program(images: Tensor) -> Tensor:
            (logits,) = session.run(["logits"], {"images": images.cpu().numpy()})
            return torch.from_numpy(logits)

        _compare(network, program, path, example)
    write_atomically(path, lambda file: file.write(content))


FORMATS = {".onnx": export_onnx, ".pt2": export_program}
"""The function that writes a file, by the ending of the file's name."""


def export_command(source: Path, to: Path) -> str:
    """Export the weights in a file, or in a training's directory, to a file .onnx or .pt2; returns
    what the program takes and gives, in words.

    Raises `SettingsError`, `UserError` and OSError.
    """
    if to.suffix not in FORMATS:
        raise SettingsError(f"--to is {to}: give a name that ends in {' or '.join(FORMATS)}")
    path = source / "weights.safetensors" if source.is_dir() else source
    network, metadata = load_weights(path)
    channels, size = int(metadata["in_channels"]), int(metadata["image_size"])
    example = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    to.parent.mkdir(parents=True, exist_ok=True)
    FORMATS[to.suffix](network, to, example, metadata)
    shape = f"{channels}, {size}, {size}"
    return (
        f"{to}: takes images (batch, {shape}) in float32, pixels from 0 to 1 less mean "
        f"{metadata.get('mean', '-')}, divided by std {metadata.get('std', '-')}; gives logits "
        f"(batch, {metadata['num_classes']}). Its metadata say this, and the classes."
    )


def _traced(network: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    images = torch.cat([example, example])  # from one image, torch would fix the batch at one
    batch = torch.export.Dim("batch")
    return torch.export.export(network, (images,), dynamic_shapes=({0: batch},))


def _compare(
    network: Callable[[Tensor], Tensor],
    program: Callable[[Tensor], Any],
    path: Path,
    example: Tensor,
) -> None:
    """Raise `UserError` unless the program gives the network's outputs for batches of 3 sizes."""
    for images in (example, example[:1], torch.cat([example, example.flip(3), example[:1]])):
        expected, found = network(images).cpu(), program(images).cpu()
        scale = max(1.0, float(expected.abs().max()))
        try:
            torch.testing.assert_close(found, expected, rtol=_RELATIVE, atol=_ABSOLUTE * scale)
        except AssertionError:
            raise UserError(
                f"{path} was not written: in a batch of {len(images)} its outputs differ from the "
                f"network's by up to {float((found - expected).abs().max()):.2g}, which is an "
                "error of the export; try another version of torch or another format"
            ) from None
