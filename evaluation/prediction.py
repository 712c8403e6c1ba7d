"""A trained network's classes of new pictures, prepared as those that it was judged on."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from blockqnn.data.files.decoding import TYPES, UNREADABLE, eight_bit_rgb, in_words
from blockqnn.data.files.layout import hidden
from blockqnn.errors import SettingsError
from blockqnn.network.weights import load_weights

BATCH = 64
"""Images that are judged at a time."""

Probabilities = npt.NDArray[np.float32]
"""Probabilities of the classes `(N, classes)`."""


@dataclass(frozen=True)
class Predictor:
    """A network with what its file says of images and classes."""

    network: Callable[[Tensor], Tensor]
    """Takes normalised images `(N, C, H, W)`, gives logits `(N, classes)`."""
    classes: tuple[str, ...]
    channels: int
    size: int
    """Side of the network's images in pixels."""
    crop: float
    """Share of the shorter side that is seen, in a square from the centre."""
    mean: Tensor
    std: Tensor

    def probabilities(self, images: Sequence[Image.Image]) -> Probabilities:
        """The probability of each class for RGB images of any size, `(N, classes)`."""
        prepared = torch.stack([self._prepared(image) for image in images])
        with torch.inference_mode():
            logits = self.network((prepared.float() / 255 - self.mean) / self.std)
        return np.asarray(logits.softmax(1))

    def _prepared(self, image: Image.Image) -> Tensor:
        """A square of the network's size in uint8, as training and evaluation cut it."""
        if self.crop == 1.0:
            square = ImageOps.fit(image, (self.size, self.size), Image.Resampling.BICUBIC)
            if self.channels == 1:
                square = square.convert("L")
            pixels = np.asarray(square, np.uint8).reshape(self.size, self.size, self.channels)
            return torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        from blockqnn.data.streamed.loading import centred  # timm takes a second to import

        return torch.as_tensor(centred(self.size, self.crop)(image))


def load_predictor(source: Path) -> Predictor:
    """The network of a final training's directory or weights, or of an exported ONNX file.

    Raises `SettingsError` for anything else.
    """
    network: Any
    if source.suffix == ".onnx":
        network, metadata = _onnx(source)
    else:
        path = source / "weights.safetensors" if source.is_dir() else source
        network, metadata = load_weights(path)
    try:
        channels = int(metadata["in_channels"])
        moments = [
            torch.tensor(json.loads(metadata[name]), dtype=torch.float32).view(1, channels, 1, 1)
            for name in ("mean", "std")
        ]
        return Predictor(
            network,
            tuple(map(str, json.loads(metadata["classes"]))),
            channels,
            int(metadata["image_size"]),
            float(metadata.get("crop", 1.0)),
            *moments,
        )
    except (LookupError, ValueError, TypeError, RuntimeError) as error:
        raise SettingsError(
            f"{source} does not say how images are prepared for it ({error}): give the directory "
            "of a final training, its weights, or what blockqnn export made of them"
        ) from None


def _onnx(source: Path) -> tuple[Callable[[Tensor], Tensor], Mapping[str, str]]:
    try:
        onnxruntime = import_module("onnxruntime")
    except ImportError:
        raise SettingsError(
            f"{source} needs ONNX Runtime: pip install 'blockqnn[export]'"
        ) from None
    try:
        session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own kinds have no common base
        what = " ".join(str(error).split())[:200]
        raise SettingsError(f"{source} is not a readable ONNX file ({what})") from None

    def network(images: Tensor) -> Tensor:
        (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        return torch.from_numpy(logits)

    return network, session.get_modelmeta().custom_metadata_map


def image_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files that were named, and the images in directories, by name. Raises `SettingsError`
    for a path that is not there.
    """
    for path in paths:
        if path.is_dir():
            every = (p for p in path.rglob("*") if p.suffix.lower() in TYPES)
            found = sorted(p for p in every if not any(map(hidden, p.relative_to(path).parts)))
            if not found:
                raise SettingsError(f"{path} has no images ({', '.join(TYPES)})")
            yield from found
        elif path.exists():
            yield path
        else:
            raise SettingsError(f"{path} is not there: name images, or directories of them")


@dataclass(frozen=True)
class Prediction:
    """What a network says of one picture."""

    file: Path
    classes: dict[str, float]
    """Probabilities of the most likely classes by name, the largest first."""
    error: str = ""
    """Why the file could not be read; empty if it could."""


def predict(predictor: Predictor, files: Iterable[Path], top: int) -> Iterator[Prediction]:
    """The `top` most likely classes of each picture, in the order of the files."""
    batch: list[tuple[Path, Image.Image | str]] = []
    for file in files:
        batch.append((file, _read(file)))
        if len(batch) == BATCH:
            yield from _judged(predictor, batch, top)
            batch = []
    yield from _judged(predictor, batch, top)


def _judged(
    predictor: Predictor, batch: Sequence[tuple[Path, Image.Image | str]], top: int
) -> Iterator[Prediction]:
    images = [image for _, image in batch if not isinstance(image, str)]
    rows: Iterator[Any] = iter(predictor.probabilities(images) if images else ())
    for file, image in batch:
        if isinstance(image, str):
            yield Prediction(file, {}, image)
            continue
        row = next(rows)
        best = np.argsort(-row, kind="stable")[:top]
        yield Prediction(file, {predictor.classes[place]: float(row[place]) for place in best})


def _read(file: Path) -> Image.Image | str:
    """A picture in RGB, or why it is none."""
    try:
        with Image.open(file) as image:
            return eight_bit_rgb(image)
    except UNREADABLE as error:
        return in_words(error)
