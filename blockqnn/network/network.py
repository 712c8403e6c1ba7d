"""Blocks are stacked into a network (CVPR 2018, sections 3.1 and 4.2). Images are (N, C, H, W)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from blockqnn.network.cells import Convolution, Pcc
from blockqnn.network.stage import Stage
from blockqnn.space import Block
from blockqnn.space.skeleton import STEM_POOLS, stage_repeats, stem_width


class BlockNetwork(nn.Module):
    """A network (N, `in_channels`, H, W) -> (N, `num_classes`) logits, freshly initialised: stem,
    stages of blocks with poolings between them, head.

    `filters` gives the width of each stage, `repeats` its number of blocks: one number for all
    or one a stage. The skeletons, and the connections between blocks (none, shortcut or concat),
    are described in `blockqnn.space.skeleton`. `dropout` is the share of features that training
    drops before the linear layer.

    `drop_path` is our reading of stochastic depth for blocks without a shortcut, NASNet's scheduled
    drop path: where the output of a convolution or pooling enters an add or a concat (that of the
    leaves too), training leaves it out for whole images and scales it up for the others, with a
    probability that grows from block to block up to `drop_path` in the last. The input of the block
    and sums never drop, and a block in which nothing meets is left as it is.

    The network has what timm's tools look for in a model. `feature_info` lists the stages with
    their channels and by how much their maps are smaller than the image; `num_features` is the
    channels of the last. Raises `ValueError` that names the argument, its value and what to give
    instead.
    """

    def __init__(
        self,
        block: Block,
        *,
        filters: Sequence[int],
        repeats: int | Sequence[int],
        num_classes: int,
        in_channels: int = 3,
        skeleton: str = "cifar",
        connections: str = "none",
        drop_path: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        each = stage_repeats(filters, repeats, num_classes, in_channels, skeleton, connections)
        for name, value in (("drop_path", drop_path), ("dropout", dropout)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}: give 0 to below 1")
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_channels
        self.drop_rate = dropout
        self.global_pool = "avg"
        self.grad_checkpointing = False
        self.feature_info: list[dict[str, Any]] = []
        width, reduction = stem_width(filters, skeleton), 2 ** STEM_POOLS[skeleton]
        self.stem = _stem(skeleton, in_channels, width)
        rates = (drop_path * number / sum(each) for number in range(1, sum(each) + 1))
        for stage, (stage_filters, count) in enumerate(zip(filters, each, strict=True), start=1):
            if stage > 1:
                self.add_module(f"pool{stage - 1}", nn.MaxPool2d(2))
                reduction *= 2
            blocks = Stage(block, width, stage_filters, islice(rates, count), connections)
            self.add_module(name := f"stage{stage}", blocks)
            width = blocks.out_channels
            self.feature_info.append({"num_chs": width, "reduction": reduction, "module": name})
        self._body = [name for name, _ in self.named_children()]
        self.num_features = self.head_hidden_size = width
        linear = nn.Linear(width, num_classes)
        self.head = nn.Sequential(nn.ReLU(True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """The last stage's maps after their ReLU: (N, `num_features`, h, w)."""
        for name in self._body:
            part = getattr(self, name)
            if self.grad_checkpointing and name.startswith("stage") and torch.is_grad_enabled():
                x = part.run(x, _checkpointed)
            else:
                x = part(x)
        features: Tensor = self.head[0](x)
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (N, `num_classes`) of maps that `forward_features` returned; with `pre_logits`
        the features that the linear layer makes them of.
        """
        for part in self.head[1:3]:
            x = part(x)
        if self.drop_rate:
            x = nn.functional.dropout(x, self.drop_rate, self.training)
        if pre_logits:
            return x
        logits: Tensor = self.head[3](x)
        return logits

    def get_classifier(self) -> nn.Module:
        """The linear layer."""
        return self.head[3]

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh linear layer in. With 0 classes there is none, and pooled features come out.

        `global_pool` is one of timm's names (avg, max, avgmax, catavgmax), or empty for none, which
        leaves maps (N, C, h, w). Raises `ValueError` for classes without a pooling.
        """
        pool_name = self.global_pool if global_pool is None else global_pool
        if num_classes and not pool_name:
            raise ValueError(f"global_pool is {pool_name!r}: {num_classes} classes need a pooling")
        pool: nn.Module = nn.AdaptiveAvgPool2d(1)
        width = self.num_features
        if pool_name != "avg":
            from timm.layers import SelectAdaptivePool2d

            pool = SelectAdaptivePool2d(pool_type=pool_name)
            width *= pool.feat_mult()
        example = next(self.parameters())
        self.head[1] = pool
        self.head[2] = nn.Flatten() if pool_name else nn.Identity()
        self.head[3] = nn.Identity()
        if num_classes:
            self.head[3] = nn.Linear(width, num_classes, device=example.device, dtype=example.dtype)
        self.num_classes, self.global_pool = num_classes, pool_name

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only the blocks' inputs for the backward pass, which computes the rest again."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Regular expressions of parameter names by depth, for timm's layer-wise learning rates."""
        return {"stem": r"^stem", "blocks": r"^stage(\d+)" if coarse else r"^stage(\d+)\.(\d+)"}


build_network = BlockNetwork
"""Make the network of a block: `BlockNetwork` under a name that says what calling it does."""


class _Skeleton(Protocol):
    @property
    def filters(self) -> Sequence[int]: ...
    @property
    def repeats(self) -> int | Sequence[int]: ...
    @property
    def skeleton(self) -> str: ...
    @property
    def connections(self) -> str: ...


class _Images(Protocol):
    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def in_channels(self) -> int: ...


class _Rates(Protocol):
    @property
    def drop_path(self) -> float: ...
    @property
    def dropout(self) -> float: ...


def network_of(
    settings: _Skeleton, block: Block, images: _Images, recipe: _Rates, seed: int
) -> BlockNetwork:
    """Return the block's network for these images as settings and a recipe say, on the CPU.

    Its weights are drawn from `seed`, and torch's generator is left as it was. Raises `ValueError`
    as `build_network` does.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(
            block,
            filters=settings.filters,
            repeats=settings.repeats,
            num_classes=len(images.classes),
            in_channels=images.in_channels,
            skeleton=settings.skeleton,
            connections=settings.connections,
            drop_path=recipe.drop_path,
            dropout=recipe.dropout,
        )


def _checkpointed(module: nn.Module, x: Tensor) -> Tensor:
    result: Tensor = checkpoint(
        module, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _seen(module))
    )
    return result


@contextmanager
def _seen(module: nn.Module) -> Iterator[None]:
    """Keep batch norms as they are while the module computes the same images once more."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, batches in kept:
            norm.momentum, norm.num_batches_tracked = momentum, batches


def _stem(skeleton: str, in_channels: int, width: int) -> nn.Sequential:
    stem: list[nn.Module] = [Convolution(in_channels, width, 3), nn.BatchNorm2d(width)]
    if skeleton == "half":
        stem.append(nn.MaxPool2d(2))
    elif skeleton == "imagenet":
        stem += [nn.MaxPool2d(2), Pcc(width, width, 3), nn.MaxPool2d(2)]
    return nn.Sequential(*stem)
