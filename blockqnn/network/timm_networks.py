"""The networks to compare with: any timm model, fitted to the images that it is trained on."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from blockqnn.errors import SettingsError

SMALL = 40
"""Largest side of images, in pixels, that a ResNet's stem passes on unshrunk."""

FAILURES = (TypeError, ValueError, AssertionError, RuntimeError)
"""What timm's models raise for arguments or images that they do not take."""


def build_comparator(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    drop_path: float = 0.0,
    dropout: float = 0.0,
) -> nn.Module:
    """A timm model by name, freshly initialised: (N, C, S, S) -> (N, num_classes) logits.

    ResNets are made for 224 pixels. For images of 40 or less their first convolution gets stride 1
    and their first pooling is left out, as everybody does for CIFAR. Models that need to know the
    size of images, vision transformers for example, are told it. Raises `SettingsError` for an
    unknown name, and for a model that does not take images of this size or rates to drop.
    """
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        remedy = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()"
        raise SettingsError(f"compare has {name!r}, which timm does not know: {remedy}")
    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels}
    rates = {"drop_path_rate": drop_path, "drop_rate": dropout}
    options |= {key: value for key, value in rates.items() if value}
    try:
        return _fitted(name, options, in_channels, image_size)
    except FAILURES as error:
        try:
            return _fitted(name, {**options, "img_size": image_size}, in_channels, image_size)
        except FAILURES:
            raise SettingsError(_sentence(name, image_size, error)) from None


def _fitted(name: str, options: dict[str, Any], in_channels: int, image_size: int) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(name, **options)
    if image_size <= SMALL:
        _keep_size(network)
    with evaluating(network):
        network(torch.zeros(2, in_channels, image_size, image_size))
    return network


def _sentence(name: str, image_size: int, error: Exception) -> str:
    for argument, setting in (("drop_path_rate", "drop_path"), ("drop_rate", "dropout")):
        if isinstance(error, TypeError) and f"'{argument}'" in str(error):
            return (
                f"compare has {name!r}, which has no {setting}: set recipe.{setting} to 0 for all, "
                "or choose another of timm's models"
            )
    return (
        f"compare has {name!r}, which does not take {image_size}x{image_size} images "
        f"({' '.join(str(error).split())[:200]}): choose another of timm's models"
    )


def count_macs(network: nn.Module, in_channels: int, image_size: int) -> int:
    """Multiply-accumulates of one image, counted by torch; `network` is on the CPU."""
    from torch.utils.flop_counter import FlopCounterMode

    with evaluating(network), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, in_channels, image_size, image_size))
    return int(counter.get_total_flops()) // 2


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode without gradients, and afterwards in its former mode."""
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(training)


def _keep_size(network: Any) -> None:
    """Let a ResNet's stem pass small images on at their own size."""
    from timm.models.resnet import ResNet

    if not isinstance(network, ResNet):
        return
    resnet: Any = network
    stem = resnet.conv1
    first: Any = stem[0] if isinstance(stem, nn.Sequential) else stem
    if first.kernel_size == (7, 7):
        first = nn.Conv2d(first.in_channels, first.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
        resnet.conv1 = first
    first.stride = (1, 1)
    resnet.maxpool = nn.Identity()
