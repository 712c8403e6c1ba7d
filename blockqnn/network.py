"""A block becomes a module, and modules are stacked into a network (CVPR 2018, sections 3.1, 4.2).

Images are (N, C, H, W). Everything inside a block keeps height and width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from blockqnn.skeleton import STEM_POOLS, stage_repeats
from blockqnn.space import Block, Layer, Op, predecessors


def build_network(
    block: Block,
    *,
    filters: Sequence[int],
    repeats: int | Sequence[int],
    num_classes: int,
    in_channels: int = 3,
    skeleton: str = "cifar",
    drop_path: float = 0.0,
    dropout: float = 0.0,
) -> BlockNetwork:
    """Return a network (N, `in_channels`, H, W) -> (N, `num_classes`) logits, freshly initialised.

    `filters` gives the width of each stage, `repeats` its number of blocks: one number for all
    or one a stage. While it trains, an operand of an add or a piece of a concat is dropped for a
    sample with a chance that grows from 0 in the first block to `drop_path` in the last (NASNet's
    way; the papers here have none), and inputs of the linear layer with a chance of `dropout`. The
    skeletons are described in `blockqnn.skeleton`. Raises `ValueError` that names the argument, its
    value and what to give instead.
    """
    each = stage_repeats(
        filters, repeats, num_classes=num_classes, in_channels=in_channels, skeleton=skeleton
    )
    return BlockNetwork(
        block,
        filters=tuple(filters),
        repeats=each,
        num_classes=num_classes,
        in_channels=in_channels,
        skeleton=skeleton,
        drop_path=drop_path,
        dropout=dropout,
    )


class BlockNetwork(nn.Module):
    """A network stacked from a block; made by `build_network`, with the methods timm expects.

    Its parts are `stem`, `stage1`, `pool1`, `stage2`, ..., `head`, run in this order.
    """

    def __init__(
        self,
        block: Block,
        *,
        filters: tuple[int, ...],
        repeats: tuple[int, ...],
        num_classes: int,
        in_channels: int,
        skeleton: str,
        drop_path: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.drop_rate = dropout
        self.grad_checkpointing = False
        self.feature_info: list[dict[str, Any]] = []
        """Of each stage: channels, how often it is smaller than the image, its name."""
        width = filters[0]
        reduction = 2 ** STEM_POOLS[skeleton]
        last = max(1, sum(repeats) - 1)
        chances = [drop_path * number / last for number in range(sum(repeats))]
        self.add_module("stem", _stem(skeleton, in_channels, width))
        for stage, (stage_filters, blocks) in enumerate(
            zip(filters, repeats, strict=True), start=1
        ):
            if stage > 1:
                self.add_module(f"pool{stage - 1}", nn.MaxPool2d(2))
                reduction *= 2
            modules = []
            for _ in range(blocks):
                modules.append(BlockModule(block, width, stage_filters, chances.pop(0)))
                width = modules[-1].out_channels
            self.add_module(f"stage{stage}", nn.Sequential(*modules))
            self.feature_info.append(
                {"num_chs": width, "reduction": reduction, "module": f"stage{stage}"}
            )
        self.num_features = self.head_hidden_size = width
        self.head = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, `num_classes`) logits."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """The last stage's maps, (N, `num_features`, h, w)."""
        features = images
        for name, part in self.named_children():
            if name == "head":
                continue
            if self.grad_checkpointing and self.training and name.startswith("stage"):
                for block in part.children():
                    features = checkpoint(block, features, use_reentrant=False)
            else:
                features = part(features)
        return features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of the last stage's maps, or, with `pre_logits`, what the linear layer reads."""
        pooled: Tensor = self.head[:-1](features)
        if self.drop_rate:
            pooled = nn.functional.dropout(pooled, self.drop_rate, self.training)
        if pre_logits:
            return pooled
        logits: Tensor = self.head[-1](pooled)
        return logits

    def get_classifier(self) -> nn.Module:
        """The linear layer."""
        return self.head[-1]

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Another linear layer, for so many classes; 0: none, the pooled features are the output.

        `global_pool` may be avg or max.
        """
        poolings = {"avg": nn.AdaptiveAvgPool2d, "max": nn.AdaptiveMaxPool2d}
        if global_pool is not None:
            if global_pool not in poolings:
                raise ValueError(f"global_pool is {global_pool!r}: give avg or max")
            self.head[1] = poolings[global_pool](1)
        self.num_classes = num_classes
        linear = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.head[-1] = linear.to(next(self.parameters()).device)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute a block's inner tensors again in the backward pass: less memory, more time."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """timm's grouping of parameters by depth, for learning rates by layer."""
        blocks = r"^stage(\d+)" if coarse else r"^stage(\d+)\.(\d+)"
        return {"stem": r"^stem", "blocks": [(blocks, None)]}


def _stem(skeleton: str, in_channels: int, width: int) -> nn.Sequential:
    stem: list[nn.Module] = [Convolution(in_channels, width, 3), nn.BatchNorm2d(width)]
    if skeleton == "imagenet":
        stem += [nn.MaxPool2d(2), Pcc(width, width, 3), nn.MaxPool2d(2)]
    return nn.Sequential(*stem)


class Convolution(nn.Conv2d):
    """Size-preserving convolution without bias, He-initialised over its inputs (fan in)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)

    def reset_parameters(self) -> None:
        # The ReLU stands before the convolution: fan in is what keeps the variance going forward.
        nn.init.kaiming_normal_(self.weight, mode="fan_in", nonlinearity="relu")


class Pcc(nn.Sequential):
    """The paper's pre-activation convolution cell: ReLU, convolution, batch norm."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, inplace: bool = False
    ) -> None:
        super().__init__(
            nn.ReLU(inplace),
            Convolution(in_channels, out_channels, kernel),
            nn.BatchNorm2d(out_channels),
        )


class Add(nn.Module):
    """Sum of two maps; where widths differ, those not `filters` wide are projected to it first."""

    def __init__(self, widths: Sequence[int], filters: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path = drop_path
        projected = widths[0] != widths[1]
        self.out_channels = filters if projected else widths[0]
        self.projections = nn.ModuleList(
            Pcc(width, filters, 1) if projected and width != filters else nn.Identity()
            for width in widths
        )

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        first, second = self.projections
        total: Tensor = _dropped(first(one), self) + _dropped(second(other), self)
        return total


class Concat(nn.Module):
    """`torch.cat` over channels with dense gradients."""

    def __init__(self, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path = drop_path

    def forward(self, *pieces: Tensor) -> Tensor:
        kept = [_dropped(piece, self) for piece in pieces]
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():  # exported graphs too
            return torch.cat(kept, 1)
        joined: Tensor = _DenseConcat.apply(*kept)
        return joined


def _dropped(images: Tensor, module: Add | Concat) -> Tensor:
    """A map with some samples dropped while the module trains, the others scaled up."""
    if not (module.drop_path and module.training):
        return images
    from timm.layers import drop_path

    kept: Tensor = drop_path(images, module.drop_path, training=True)
    return kept


class _DenseConcat(torch.autograd.Function):
    """Hands every piece a gradient of its own, dense, in the memory format of the output.

    The backward of `torch.cat` hands out slices of one tensor, on which the backward of batch
    norm is many times slower than on a dense one.
    """

    @staticmethod
    def forward(ctx: Any, *pieces: Tensor) -> Tensor:
        joined = torch.cat(pieces, 1)
        ctx.widths = [piece.shape[1] for piece in pieces]
        ctx.memory_format = (
            torch.channels_last
            if joined.is_contiguous(memory_format=torch.channels_last)
            else torch.contiguous_format
        )
        return joined

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            piece.contiguous(memory_format=ctx.memory_format)
            for piece in torch.split(gradient, ctx.widths, 1)
        )


class BlockModule(nn.Module):
    """One block: (N, `in_channels`, H, W) -> (N, `out_channels`, H, W).

    `layers` holds modules under the indices of the block's layers, the terminal standing for the
    concat of the leaves. Identities and kernel-1 poolings are other names for what they read.
    """

    def __init__(
        self, block: Block, in_channels: int, filters: int, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        plan, self.result = _plan(block)
        readers = Counter(source for _, sources in plan for source in sources)
        last_reader = {source: layer.index for layer, sources in plan for source in sources}
        self.layers = nn.ModuleDict()
        self.steps: list[tuple[str, tuple[int, ...], list[int]]] = []
        widths = {0: in_channels}
        for layer, sources in plan:
            # A PCC may overwrite what nobody else reads. The block's input is its caller's.
            overwrite = readers[sources[0]] == 1 and sources[0] != 0
            module, width = _module(
                layer, [widths[s] for s in sources], filters, overwrite, drop_path
            )
            self.layers[str(layer.index)] = module
            widths[layer.index] = width
            spent = [source for source in set(sources) if last_reader[source] == layer.index]
            self.steps.append((str(layer.index), sources, spent))
        self.out_channels = widths[self.result]

    def forward(self, x: Tensor) -> Tensor:
        tensors = {0: x}
        del x
        for name, sources, spent in self.steps:
            read = [tensors[source] for source in sources]
            for source in spent:  # freed at its last use, not at the end of the block
                del tensors[source]
            tensors[int(name)] = self.layers[name](*read)
        return tensors[self.result]


def _plan(block: Block) -> tuple[list[tuple[Layer, tuple[int, ...]]], int]:
    """The layers that compute something, each with the tensors it reads, and the result's index."""
    plan: list[tuple[Layer, tuple[int, ...]]] = []
    tensor_of = {0: 0}
    for layer in block.layers:
        is_end = layer.op == Op.TERMINAL
        read = (block.leaves or (0,)) if is_end else predecessors(layer)
        sources = tuple(tensor_of[source] for source in read)
        is_name = len(sources) == 1 and (is_end or layer.op == Op.IDENTITY or _is_no_pool(layer))
        tensor_of[layer.index] = sources[0] if is_name else layer.index
        if not is_name:
            plan.append((layer, sources))
    return plan, tensor_of[block.layers[-1].index]


def _is_no_pool(layer: Layer) -> bool:
    return layer.op in (Op.MAX_POOL, Op.AVG_POOL) and layer.kernel == 1


def _module(
    layer: Layer, widths: Sequence[int], filters: int, overwrite: bool, drop_path: float
) -> tuple[nn.Module, int]:
    """The module of one layer that reads maps so wide, and the width of its output."""
    if layer.op == Op.CONV:
        return Pcc(widths[0], filters, layer.kernel, inplace=overwrite), filters
    if layer.op == Op.MAX_POOL:
        return nn.MaxPool2d(3, stride=1, padding=1), widths[0]
    if layer.op == Op.AVG_POOL:
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), widths[0]
    if layer.op == Op.ADD:
        add = Add(widths, filters, drop_path)
        return add, add.out_channels
    return Concat(drop_path), sum(widths)
