"""Trained weights as safetensors. Their metadata say how to build the network again.

Metadata are texts, numbers and lists in JSON: num_classes, in_channels, image_size in pixels,
crop, the share of a picture's shorter side that is seen, classes, mean and std of each channel for
pixels from 0 to 1. For a block's network they have block,
filters, repeats, skeleton and, where there are any, connections; for another the name of timm's
model under timm. Nothing in such a file is ever executed. A checksum is kept among the metadata,
since the format does not notice a changed bit.
"""

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blockqnn.errors import SettingsError
from blockqnn.network.network import build_network
from blockqnn.network.timm_networks import build_comparator
from blockqnn.space import LONGEST, Block
from blockqnn.storage import write_atomically

_CHECKSUM = "sha256"
"""Name of the checksum among a file's metadata."""
LARGEST = 4096
"""Largest side of images, in pixels, that a file may ask for: memory for two must suffice."""

MOST_BLOCKS = 1000
"""Most blocks that a file may ask for if it has fewer weights than blocks: poolings have none."""


def save_weights(network: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a network's weights and its metadata, atomically; equal ones make equal bytes.

    Raises OSError when the disk is full, and leaves nothing behind then.
    """
    from safetensors.torch import save

    state = {k: value.detach().cpu().contiguous() for k, value in network.state_dict().items()}
    header, tensors = _header(save(state), {**metadata, _CHECKSUM: _checksum(state)})
    write_atomically(path, lambda file: file.writelines([header, tensors]))


def load_weights(path: Path) -> tuple[nn.Module, dict[str, str]]:
    """The network that a file holds, on the CPU and in evaluation mode, and its metadata.

    Raises `SettingsError` for a file that is absent, damaged or not ours.
    """
    with _opened(path) as file:
        metadata = dict(file.metadata() or {})
        # Copies: the file is mapped into memory, and may be overwritten while the network lives.
        state = {name: file.get_tensor(name).clone() for name in file.keys()}
    if metadata.pop(_CHECKSUM, None) not in (None, _checksum(state)):
        raise SettingsError(f"{path} is damaged (its checksum is another): copy or train it again")
    with _explained(path):
        is_timm = "timm" in metadata
        network = _comparator(metadata, state) if is_timm else _outline(metadata, state)
        network.load_state_dict(state, assign=not is_timm)
    network.eval()
    return network, metadata


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file of weights. Raises `SettingsError` if it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise SettingsError(
            f"{path} cannot be read as safetensors ({error}): give the weights of a final training"
        ) from None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Raise `SettingsError` for whatever building a network raises: the metadata are anybody's."""
    try:
        yield
    except (LookupError, ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise SettingsError(
            f"{path} does not hold a network of blockqnn ({reason[:200]}): give weights that a "
            "final training wrote"
        ) from None


def _header(content: bytes, metadata: Mapping[str, str]) -> tuple[bytes, memoryview]:
    """A file's header with these metadata in order, and its tensors.

    safetensors itself writes metadata in a random order.
    """
    start = 8 + struct.unpack("<Q", content[:8])[0]
    names = {"__metadata__": dict(sorted(metadata.items())), **json.loads(content[8:start])}
    text = json.dumps(names, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, memoryview(content)[start:]


def _checksum(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _comparator(metadata: Mapping[str, str], state: Mapping[str, Tensor]) -> nn.Module:
    """The timm model of the metadata, with fresh weights."""
    values = sum(value.numel() for value in state.values())
    widths = [int(w) for w in metadata["timm"].rpartition(":")[2].split("-") if w.isdecimal()]
    if any(width * width > values for width in widths):  # a convolution of its own has as many
        raise ValueError(f"timm is {metadata['timm']}, wider than its {values} weights")
    return build_comparator(
        metadata["timm"],
        num_classes=_number(metadata, "num_classes", values),
        in_channels=_number(metadata, "in_channels", values),
        image_size=_number(metadata, "image_size", LARGEST),
    )


def _outline(metadata: Mapping[str, str], state: Mapping[str, Tensor]) -> nn.Module:
    """The network of the metadata's block, which the weights fit. Its own weights take no memory,
    so that a file cannot ask for more than it brings.
    """
    filters, repeats = json.loads(metadata["filters"]), json.loads(metadata["repeats"])
    blocks = repeats * len(filters) if isinstance(repeats, int) else sum(repeats)
    if blocks > max(len(state), MOST_BLOCKS):
        raise ValueError(f"repeats is {metadata['repeats']}, which its {len(state)} weights lack")
    _number(metadata, "image_size", LARGEST)
    with torch.device("meta"):
        network = build_network(
            Block.parse(metadata["block"], LONGEST),
            filters=filters,
            repeats=repeats,
            skeleton=metadata["skeleton"],
            connections=metadata.get("connections", "none"),
            num_classes=_number(metadata, "num_classes"),
            in_channels=_number(metadata, "in_channels"),
        )
    expected, found = _kinds(network.state_dict()), _kinds(state)
    for name in expected | found:
        if expected.get(name) != found.get(name):
            raise ValueError(f"{name} is {found.get(name)}, not {expected.get(name)}")
    return network


def _kinds(state: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: f"{value.dtype} {list(value.shape)}" for name, value in state.items()}


def _number(metadata: Mapping[str, str], name: str, most: int | None = None) -> int:
    value = int(metadata[name])
    if value < 1 or (most is not None and value > most):
        raise ValueError(f"{name} is {value}")
    return value
