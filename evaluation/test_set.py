"""Judges one finished training on the test set: the only place where that is opened."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from blockqnn.cost import network_cost
from blockqnn.errors import SearchError
from blockqnn.network.timm_networks import count_macs
from blockqnn.settings import EvaluationSettings
from blockqnn.space import LONGEST, Block
from blockqnn.training.devices import out_of_memory
from blockqnn.training.precision import mixed_precision
from blockqnn.training.speed import measure_speed
from evaluation.metrics import Tally

VERSION = 1
"""Of an evaluation's format; later versions of this package read it or say that they cannot."""

Batches = Iterable[tuple[Tensor, Tensor]]
"""Normalised images `(N, C, H, W)` and labels `(N,)`, on any device."""


def judge(
    network: nn.Module,
    result: Mapping[str, Any],
    *,
    id: str,
    test: Batches,
    device: torch.device,
    settings: EvaluationSettings,
    larger: Batches | None = None,
) -> dict[str, Any]:
    """Everything that evaluations/<id>.json says about a trained network, as plain values.

    `result` is the training's result.json, `id` the name of its directory. `test` are the test
    images, `larger` the same at a larger size; they are gone through once, one crop each.
    Precision is what the recipe's comes to on `device`. A timm model that takes images of one size
    only has None under `larger`. Raises `SearchError` when the test set is empty or the network's
    outputs are not finite.
    """
    data, precision = result["data"], result["recipe"]["precision"]
    classes, channels, size = data["classes"], int(data["in_channels"]), int(data["image_size"])
    macs = _macs(network, result)
    network.to(device).to(memory_format=torch.channels_last)
    try:
        tested = evaluate_network(network, test, classes, device, precision)
        wider = None
        if larger is not None and (result.get("block") or _takes(network, settings, channels)):
            wider = evaluate_network(network, larger, classes, device, precision)
    except ValueError as error:
        raise SearchError(
            f"{result['label']} cannot be judged on the test images of {data['name']}: {error}; "
            "look at data.root, or train it with recipe.precision: float32"
        ) from None
    return {
        "version": VERSION,
        "id": id,
        **{key: result.get(key) for key in ("label", "block", "timm", "seed", "split", "identity")},
        "test": tested,
        "larger": wider,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "macs": macs,
        "speed": measure_speed(
            network,
            batches=settings.batches,
            in_channels=channels,
            image_size=size,
            device=device,
            precision=precision,
            repeats=settings.repeats,
        ),
        "finished": time.time(),
    }


def evaluate_network(
    network: nn.Module,
    batches: Batches,
    classes: Sequence[str],
    device: torch.device,
    precision: str = "auto",
) -> dict[str, Any]:
    """What `Tally.result` says of the network's outputs for all batches, and their size in pixels.

    The network is on `device`; raises `ValueError` for no images, another size in a later batch,
    and outputs that are not finite.
    """
    tally, size = Tally(len(classes)), 0
    was_training = network.training
    network.eval()
    with torch.inference_mode(), mixed_precision(device, precision):
        for images, labels in batches:
            if size not in (0, images.shape[-1]):
                raise ValueError(f"images of {size} and of {images.shape[-1]} pixels are mixed")
            size = images.shape[-1]
            images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
            tally.add(network(images).float(), labels)
    network.train(was_training)
    return {"size": size, **tally.result(classes)}


def _macs(network: nn.Module, result: Mapping[str, Any]) -> int:
    """Multiply-accumulates of one image: a block's from its code, a timm model's by counting."""
    data, shape = result["data"], result.get("network")
    channels, size = int(data["in_channels"]), int(data["image_size"])
    if not result.get("block") or not shape:
        return count_macs(network.cpu(), channels, size)
    repeats = shape["repeats"]
    return network_cost(
        Block.parse(result["block"], LONGEST),
        filters=tuple(shape["filters"]),
        repeats=repeats if isinstance(repeats, int) else tuple(repeats),
        num_classes=len(data["classes"]),
        in_channels=channels,
        image_size=size,
        skeleton=shape["skeleton"],
        connections=shape.get("connections", "none"),
    ).macs


def _takes(network: nn.Module, settings: EvaluationSettings, channels: int) -> bool:
    """Whether a timm model takes the larger images at all: vision transformers do not."""
    if settings.larger is None:
        return True
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, channels, settings.larger, settings.larger, device=device))
    except (AssertionError, ValueError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        return False
    finally:
        network.train(was_training)
    return True
