"""Trained weights as safetensors; their metadata say how to build the network again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from blockqnn.errors import SettingsError
from blockqnn.files import write_atomically


def save_weights(network: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a network's weights, atomically, with its metadata (see `blockqnn.jobs.Subject`).

    Raises OSError when the disk is full; nothing is left behind then.
    """
    from safetensors.torch import save

    state = {
        name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()
    }
    content = save(state, dict(metadata))
    write_atomically(path, lambda file: file.write(content))


def load_weights(path: Path) -> tuple[nn.Module, dict[str, str]]:
    """The network that a file's metadata describes, with its weights, on the CPU; the metadata.

    Raises `SettingsError` for a file that is absent, damaged or not ours.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}
        network = _build(metadata)
        network.load_state_dict(state)
    except (OSError, SafetensorError) as error:
        raise SettingsError(f"{path} cannot be read ({error}): give whole safetensors") from None
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SettingsError(
            f"{path} does not hold a network of blockqnn ({reason}): give weights that a final "
            "training wrote"
        ) from None
    network.eval()
    return network, metadata


def _build(metadata: Mapping[str, str]) -> nn.Module:
    """The network of the metadata, with fresh weights."""
    sizes = {name: int(metadata[name]) for name in ("num_classes", "in_channels")}
    if "timm" in metadata:
        from blockqnn.comparators import build_comparator

        size = int(metadata["image_size"])
        return build_comparator(metadata["timm"], **sizes, image_size=size)
    from blockqnn.network import build_network
    from blockqnn.space import Block

    return build_network(
        Block.parse(metadata["block"]),
        filters=json.loads(metadata["filters"]),
        repeats=json.loads(metadata["repeats"]),
        skeleton=metadata["skeleton"],
        **sizes,
    )
