"""Arithmetic of a training: in which precision a device computes, and counts of right answers."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def count_correct(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    precision: str,
    classes: int,
) -> Tensor:
    """Count the images of normalised batches that are classified correctly, and all images.

    Returns both numbers for each class as an int64 tensor `(2, classes)` on the device. The network
    is left in evaluation mode.
    """
    network.eval()
    counts = torch.zeros(2, classes, dtype=torch.int64, device=device)
    for images, labels in batches:
        with mixed_precision(device, precision):
            logits: Tensor = network(images)
        right = labels[logits.argmax(1) == labels]
        for row, of in enumerate((right, labels)):
            counts[row] += of.bincount(minlength=classes)
    return counts


def mixed_precision(device: torch.device, precision: str) -> torch.autocast:
    """Autocast to a recipe's precision, as `resolve_precision` understands it."""
    resolved = resolve_precision(device, precision)
    dtype = torch.float16 if resolved == "float16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=resolved != "float32")


def resolve_precision(device: torch.device, precision: str) -> str:
    """The precision itself, or for `auto` bfloat16 if the device is fast in it, else float32."""
    if precision != "auto":
        return precision
    return "bfloat16" if fast_in_bfloat16(device) else "float32"


def fast_in_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware. Emulation is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False
