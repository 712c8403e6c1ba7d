"""The networks in timm's registry: import this module, and `timm.create_model("blockqnn", ...)`
builds them, `block` being a code or a zoo name.

Not imported by `blockqnn.network.network`, as timm takes a second that a search need not wait for.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from blockqnn.errors import SettingsError
from blockqnn.network import BlockNetwork, build_network
from blockqnn.network.weights import load_weights
from blockqnn.space import Block
from blockqnn.zoo import named_block

FILTERS = (32, 64, 128)
"""The paper's filters for CIFAR."""

default_cfgs = generate_default_cfgs(
    {
        "blockqnn": {  # CIFAR-10
            "num_classes": 10,
            "input_size": (3, 32, 32),
            "pool_size": (8, 8),
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "mean": (0.4914, 0.4822, 0.4465),
            "std": (0.2470, 0.2435, 0.2616),
            "first_conv": "stem.0",
            "classifier": "head.3",
            "paper_ids": "arXiv:1708.05552",
        }
    }
)


@register_model
def blockqnn(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build the network of a block: (N, `in_chans`, H, W) -> (N, `num_classes`) logits.

    Takes `block`, `filters`, `repeats`, `skeleton`, `connections` as `build_network` (default: S
    for CIFAR), and timm's `num_classes`, `in_chans`, `global_pool`, `drop_rate`, `drop_path_rate`,
    `features_only` (a map a stage) and `out_indices`. With `pretrained`,
    `pretrained_cfg_overlay={"file": ...}` names a file of `blockqnn.network.weights`, whose
    metadata then stand for what is not given. Raises `ValueError` that names what is wrong.
    """
    if pretrained:
        kwargs = _with_metadata(kwargs)
    stages = len(kwargs.get("filters", FILTERS))
    network: nn.Module = build_model_with_cfg(
        _build, "blockqnn", pretrained, feature_cfg={"out_indices": tuple(range(stages))}, **kwargs
    )
    return network


def load_pretrained(path: Path, **kwargs: Any) -> nn.Module:
    """Return the network in a file of `blockqnn.network.weights`, in training mode.

    `kwargs` go to timm's `create_model`; the network's `pretrained_cfg` says how images are
    normalised. Raises `SettingsError` for a file that is absent, damaged or not ours.
    """
    kwargs |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path)}}
    network: nn.Module = timm.create_model("blockqnn", **kwargs)
    return network


def _build(
    block: str | Block = "S",
    *,
    filters: Sequence[int] = FILTERS,
    repeats: int | Sequence[int] = 2,
    skeleton: str = "cifar",
    connections: str = "none",
    num_classes: int = 10,
    in_chans: int = 3,
    global_pool: str = "avg",
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> BlockNetwork:
    network = build_network(
        block if isinstance(block, Block) else named_block(block, "block is")[1],
        filters=filters,
        repeats=repeats,
        skeleton=skeleton,
        connections=connections,
        num_classes=num_classes or 1,
        in_channels=in_chans,
        drop_path=drop_path_rate,
        dropout=drop_rate,
    )
    if num_classes == 0 or global_pool != "avg":
        network.reset_classifier(num_classes, global_pool)
    return network


def _with_metadata(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of `blockqnn`, completed by the metadata of its file of weights."""
    given, overlay = dict(kwargs), dict(kwargs.get("pretrained_cfg_overlay") or {})
    path = overlay.get("file")
    if path is None or Path(path).suffix != ".safetensors":  # timm's affair, weights alone
        return given
    _, metadata = load_weights(Path(path))  # which notices all that is wrong with a file
    if "block" not in metadata:
        raise SettingsError(f"{path} holds timm's {metadata['timm']}: give weights of a block")
    for name, read in (("block", str), ("skeleton", str), ("filters", _list), ("repeats", _list)):
        given.setdefault(name, read(metadata[name]))
    given.setdefault("connections", metadata.get("connections", "none"))
    size = int(metadata["image_size"])
    facts = {
        "num_classes": int(metadata["num_classes"]),
        "input_size": (int(metadata["in_channels"]), size, size),
    }
    names = {"mean": "mean", "std": "std", "label_names": "classes"}
    facts |= {name: _list(metadata[key]) for name, key in names.items() if key in metadata}
    return given | {"pretrained_cfg_overlay": facts | overlay}


def _list(text: str) -> Any:
    value = json.loads(text)
    return tuple(value) if isinstance(value, list) else value
