"""Judges one finished training on the test set, which is opened for nothing else."""

import time
from collections.abc import Iterable, Sequence
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from blockqnn.errors import SearchError
from blockqnn.network.timm_networks import count_macs
from blockqnn.settings import EvaluationSettings, NetworkSettings
from blockqnn.space import LONGEST, Block
from blockqnn.training.devices import out_of_memory
from blockqnn.training.final.result import TrainingResult
from blockqnn.training.precision import mixed_precision
from blockqnn.training.speed import measure_speed
from evaluation.metrics import Tally

VERSION = 1
"""Format of an evaluation; later versions of this package read it or say that they cannot."""

Batches = Iterable[tuple[Tensor, Tensor]]
"""Normalised images `(N, C, H, W)` and labels `(N,)`, on any device."""


class Evaluation(TypedDict):
    """The content of evaluations/<id>.json, where the id is the name of the training's directory.

    `test` and `larger` are what `evaluate_network` returns for the test images at the size of
    training and at a larger one; `speed` are the rows of `measure_speed`; `macs` counts the
    multiply-accumulates of one image; `finished` is in seconds since 1970; `settings` says how the
    network was judged.
    """

    version: int
    id: str
    label: str
    block: str | None
    timm: str | None
    seed: int
    split: str
    identity: str
    test: dict[str, Any]
    larger: dict[str, Any] | None
    parameters: int
    macs: int
    speed: list[dict[str, Any]]
    finished: float
    settings: NotRequired[dict[str, Any]]


def judge(
    network: nn.Module,
    result: TrainingResult,
    *,
    id: str,
    test: Batches,
    device: torch.device,
    settings: EvaluationSettings,
    larger: Batches | None = None,
) -> Evaluation:
    """Evaluate a trained network on the test images, once, and measure its speed.

    `result` is the training's result.json, `id` the name of its directory. `test` are the test
    images, `larger` the same at a larger size: one crop of each. Precision is what the recipe's
    comes to on `device`. A timm model that takes images of one size only has None under `larger`.
    Raises `SearchError` when the test set is empty or the network's outputs are not finite.
    """
    data, precision = result["data"], result["recipe"]["precision"]
    classes, channels, size = data["classes"], int(data["in_channels"]), int(data["image_size"])
    macs = _macs(network, result)
    network.to(device).to(memory_format=torch.channels_last)
    try:
        tested = evaluate_network(network, test, classes, device, precision)
        wider = None
        if larger is not None and (result["block"] or _takes(network, settings, channels)):
            wider = evaluate_network(network, larger, classes, device, precision)
    except ValueError as error:
        raise SearchError(
            f"{result['label']} cannot be judged on the test images of {data['name']}: {error}; "
            "look at data.root, or train it with recipe.precision: float32"
        ) from None
    speed = measure_speed(
        network,
        batches=settings.batches,
        in_channels=channels,
        image_size=size,
        device=device,
        precision=precision,
        repeats=settings.repeats,
    )
    return Evaluation(
        version=VERSION,
        id=id,
        label=result["label"],
        block=result["block"],
        timm=result["timm"],
        seed=result["seed"],
        split=result["split"],
        identity=result["identity"],
        test=tested,
        larger=wider,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=macs,
        speed=speed,
        finished=time.time(),
    )


def evaluate_network(
    network: nn.Module,
    batches: Batches,
    classes: Sequence[str],
    device: torch.device,
    precision: str = "auto",
) -> dict[str, Any]:
    """What `Tally.result` says of the network's outputs for all batches, and `size` in pixels.

    The network is on `device`. Raises `ValueError` for no images, images of different sizes, and
    outputs that are not finite.
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


def _macs(network: nn.Module, result: TrainingResult) -> int:
    """Multiply-accumulates of one image: a block's from its code, a timm model's by counting."""
    data, shape = result["data"], result["network"]
    if not result["block"] or not shape:
        return count_macs(network.cpu(), data["in_channels"], data["image_size"])
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in shape.items()}
    return (
        NetworkSettings(**fields)
        .cost(
            Block.parse(result["block"], LONGEST),
            num_classes=len(data["classes"]),
            in_channels=data["in_channels"],
            image_size=data["image_size"],
        )
        .macs
    )


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
