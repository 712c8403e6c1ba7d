"""The modules that layer codes stand for: convolutions, additions, concatenations."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


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
