"""Trained weights as safetensors; their metadata say how to build the network again.

Metadata are texts, numbers and lists in JSON: num_classes, in_channels, image_size (pixels),
classes, mean and std (a channel, pixels from 0 to 1), and for a block's network block, filters,
repeats and skeleton, for another timm, the name of timm's model. Nothing in such a file is ever
executed. A checksum is kept with them, since the format does not notice a changed bit.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor, nn

from blockqnn.errors import SettingsError
from blockqnn.files import write_atomically

_CHECKSUM = "sha256"


def save_weights(network: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a network's weights, atomically, with its metadata; the same always in the same bytes.

    Raises OSError when the disk is full; nothing is left behind then.
    """
    from safetensors.torch import save

    state = {
        name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()
    }
    header, tensors = _header(save(state), {**metadata, _CHECKSUM: _checksum(state)})

    def write(file: BinaryIO) -> None:
        file.write(header)
        file.write(tensors)

    write_atomically(path, write)


def load_weights(path: Path) -> tuple[nn.Module, dict[str, str]]:
    """The network that a file's metadata describes, with its weights, on the CPU, in evaluation
    mode; and the metadata.

    Raises `SettingsError` for a file that is absent, damaged or not ours.
    """
    state, metadata = _read(path)
    if metadata.pop(_CHECKSUM, None) not in (None, _checksum(state)):
        raise SettingsError(f"{path} is damaged (its checksum is another): copy or train it again")
    try:
        network = _build(metadata)
        network.load_state_dict(state)
    except (LookupError, ValueError, TypeError, RuntimeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise SettingsError(
            f"{path} does not hold a network of blockqnn ({reason[:200]}): give weights that a "
            "final training wrote"
        ) from None
    network.eval()
    return network, metadata


def read_metadata(path: Path) -> dict[str, str]:
    """What a file of weights says about its network. Raises `SettingsError` as `load_weights`."""
    _, metadata = _read(path, tensors=False)
    metadata.pop(_CHECKSUM, None)
    return metadata


def _read(path: Path, tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            names = file.keys() if tensors else ()
            return {name: file.get_tensor(name) for name in names}, metadata
    except (OSError, SafetensorError) as error:
        raise SettingsError(
            f"{path} cannot be read as safetensors ({error}): give the weights of a final training"
        ) from None


def _header(content: bytes, metadata: Mapping[str, str]) -> tuple[bytes, memoryview]:
    """A file's header with metadata, and its tensors.

    The library writes metadata in a random order; here the same network makes the same file.
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


def _build(metadata: Mapping[str, str]) -> nn.Module:
    """The network of the metadata, with fresh weights."""
    sizes = {name: int(metadata[name]) for name in ("num_classes", "in_channels")}
    if "timm" in metadata:
        from blockqnn.comparators import build_comparator

        size = int(metadata["image_size"])
        return build_comparator(metadata["timm"], **sizes, image_size=size)
    from blockqnn.network import build_network
    from blockqnn.space import LONGEST, Block

    return build_network(
        Block.parse(metadata["block"], LONGEST),
        filters=json.loads(metadata["filters"]),
        repeats=json.loads(metadata["repeats"]),
        skeleton=metadata["skeleton"],
        **sizes,
    )
