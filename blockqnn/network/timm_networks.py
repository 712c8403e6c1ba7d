"""The networks to compare with: any timm model, fitted to the images that it is trained on."""

import difflib
from collections.abc import Iterator, Sequence
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

    After the name the widths of its stages may follow, as in `resnet10t:16-32-64-128`, if it is a
    ResNet with a stem of three convolutions or a ConvNeXt.
    ResNets are made for 224 pixels. For images of 40 or less their first convolution gets stride 1
    and their first pooling is left out, as everybody does for CIFAR. Models that need to know the
    size of images, vision transformers for example, are told it. Raises `SettingsError` for an
    unknown name, and for a model that does not take images of this size or rates to drop.
    """
    import timm

    base, _, text = name.rpartition(":")
    if timm.is_model(base):
        name = base
    elif not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        remedy = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()"
        raise SettingsError(f"compare has {name!r}, which timm does not know: {remedy}")
    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels}
    rates = {"drop_path_rate": drop_path, "drop_rate": dropout}
    options |= {key: value for key, value in rates.items() if value}
    if name == base:
        options |= _width_options(name, text)
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


def with_widths(name: str, widths: Sequence[int]) -> str:
    """The name that `build_comparator` takes for a model with stages of these widths."""
    return f"{name}:{'-'.join(map(str, widths))}"


def usual_widths(name: str) -> tuple[int, ...]:
    """The widths of a timm model's stages as timm makes it, for a ResNet without the expansion of
    its bottlenecks. Raises `SettingsError` for a model whose widths cannot be chosen.
    """
    import timm
    from timm.models.convnext import ConvNeXt
    from timm.models.resnet import ResNet

    if not timm.is_model(name):
        build_comparator(name, num_classes=2, in_channels=3, image_size=32)  # raises
    with torch.device("meta"):
        network: Any = timm.create_model(name)
    made: list[int] = [stage["num_chs"] for stage in network.feature_info]
    if type(network) is ConvNeXt:
        return tuple(made)
    if type(network) is ResNet and isinstance(network.conv1, nn.Sequential):
        expansion = getattr(network.layer1, "0").expansion
        return tuple(width // expansion for width in made[1:])
    raise SettingsError(
        f"compare has {name!r}, the widths of whose stages cannot be chosen: choose a ResNet with "
        "a stem of three convolutions, such as resnet10t or resnet18d, or a ConvNeXt, or set "
        "network.match=none"
    )


def _width_options(name: str, text: str) -> dict[str, Any]:
    """What timm is told for a model with stages of these widths."""
    from timm.models.convnext import ConvNeXt

    usual = usual_widths(name)
    widths = [int(part) for part in text.split("-") if part.isdecimal()]
    fits = len(widths) == len(usual) == text.count("-") + 1 and min(widths) >= 1
    if not fits:
        raise SettingsError(
            f"compare has {name}:{text}: give {len(usual)} widths, as in {with_widths(name, usual)}"
        )
    import timm

    with torch.device("meta"):
        network: Any = timm.create_model(name)
    if isinstance(network, ConvNeXt):
        return {"dims": tuple(widths)}
    return {"channels": tuple(widths), "stem_width": max(4, widths[0] // 2)}
