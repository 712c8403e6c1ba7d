"""A block becomes a module (CVPR 2018, section 3.1).

Maps are (N, C, H, W). Everything inside a block keeps height and width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from blockqnn.space.spaces import Block, Layer, Op, predecessors


class Convolution(nn.Conv2d):
    """Size-preserving convolution without bias, He-initialised over its inputs (fan in)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, groups: int = 1) -> None:
        padding = kernel // 2
        super().__init__(
            in_channels, out_channels, kernel, padding=padding, groups=groups, bias=False
        )

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


class Depthwise(Convolution):
    """Each channel convolved with a kernel of its own."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, channels, kernel, channels)

    def forward(self, x: Tensor) -> Tensor:
        # In bfloat16 torch has no fast kernel for 5x5 on a CPU: float32 takes about half the time
        # (benchmarks/separable_speed.py).
        if self.kernel_size[0] == 5 and x.device.type == "cpu" and _autocasts():
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


def _autocasts() -> bool:
    return not torch.compiler.is_compiling() and torch.is_autocast_enabled("cpu")


class Separable(nn.Sequential):
    """Pre-activation depthwise-separable convolution cell: ReLU, depthwise convolution, 1x1
    convolution to `out_channels`, batch norm. In the order of a `Pcc`, our reading: nothing stands
    between the two convolutions.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, inplace: bool = False
    ) -> None:
        super().__init__(
            nn.ReLU(inplace),
            Depthwise(in_channels, kernel),
            Convolution(in_channels, out_channels, 1),
            nn.BatchNorm2d(out_channels),
        )


class Add(nn.Module):
    """Sum of two maps; where widths differ, those not `filters` wide are projected to it first."""

    def __init__(self, widths: Sequence[int], filters: int) -> None:
        super().__init__()
        projected = widths[0] != widths[1]
        self.out_channels = filters if projected else widths[0]
        self.projections = nn.ModuleList(
            Pcc(width, filters, 1) if projected and width != filters else nn.Identity()
            for width in widths
        )

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        first, second = self.projections
        total: Tensor = first(one) + second(other)
        return total


class Concat(nn.Module):
    """`torch.cat` over channels with dense gradients."""

    def forward(self, *pieces: Tensor) -> Tensor:
        # compiled code does without, and exported programs are made of torch's own operators
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return torch.cat(pieces, 1)
        joined: Tensor = _DenseConcat.apply(*pieces)
        return joined


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
    `drop_path` is the probability that `blockqnn.network.network.build_network` describes.
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
        self.droppable = _droppable(plan) if drop_path else {}
        if self.droppable:
            from timm.layers import DropPath  # takes a second to import, and most never drop

            self.drop_path = DropPath(drop_path)
        widths = {0: in_channels}
        for layer, sources in plan:
            # A ReLU may overwrite what nobody else reads. The block's input is its caller's.
            overwrite = readers[sources[0]] == 1 and sources[0] != 0
            module, width = _module(layer, [widths[s] for s in sources], filters, overwrite)
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
            for position in self.droppable.get(name, ()):
                read[position] = self.drop_path(read[position])
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


def _droppable(plan: Sequence[tuple[Layer, tuple[int, ...]]]) -> dict[str, list[int]]:
    """By layer that joins several tensors: the positions of those that may be dropped there."""
    made_by = {layer.index: layer.op for layer, _ in plan}
    paths = (Op.CONV, Op.SEPARABLE, Op.MAX_POOL, Op.AVG_POOL)
    positions = {
        str(layer.index): [i for i, source in enumerate(sources) if made_by.get(source) in paths]
        for layer, sources in plan
        if len(sources) > 1
    }
    return {name: found for name, found in positions.items() if found}


def _is_no_pool(layer: Layer) -> bool:
    return layer.op in (Op.MAX_POOL, Op.AVG_POOL) and layer.kernel == 1


def _module(
    layer: Layer, widths: Sequence[int], filters: int, overwrite: bool
) -> tuple[nn.Module, int]:
    """The module of one layer that reads maps so wide, and the width of its output."""
    if layer.op == Op.CONV:
        return Pcc(widths[0], filters, layer.kernel, inplace=overwrite), filters
    if layer.op == Op.SEPARABLE:
        return Separable(widths[0], filters, layer.kernel, inplace=overwrite), filters
    if layer.op == Op.MAX_POOL:
        return nn.MaxPool2d(3, stride=1, padding=1), widths[0]
    if layer.op == Op.AVG_POOL:
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), widths[0]
    if layer.op == Op.ADD:
        add = Add(widths, filters)
        return add, add.out_channels
    return Concat(), sum(widths)
