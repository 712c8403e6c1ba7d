"""The modules that layer codes stand for: convolutions, sums, concatenations.

Maps are (N, C, H, W); all of these keep height and width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Convolution(nn.Conv2d):
    """Convolution without bias that keeps height and width; He-initialised over its inputs."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, groups: int = 1) -> None:
        sizes = in_channels, out_channels, kernel
        super().__init__(*sizes, padding=kernel // 2, groups=groups, bias=False)

    def reset_parameters(self) -> None:
        # A ReLU stands before the convolution: fan in keeps the variance of what goes forward.
        nn.init.kaiming_normal_(self.weight, mode="fan_in", nonlinearity="relu")


class Depthwise(Convolution):
    """A convolution of each channel with a kernel of its own."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, channels, kernel, channels)

    def forward(self, x: Tensor) -> Tensor:
        # In bfloat16 torch has no fast kernel for 5x5 on a CPU: float32 takes about half the time
        # (benchmarks/speed/separable_speed.py).
        slow = self.kernel_size[0] == 5 and x.device.type == "cpu"
        if slow and not torch.compiler.is_compiling() and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


class Pcc(nn.Sequential):
    """The paper's pre-activation convolution cell: ReLU, convolution, batch norm."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, inplace: bool = False
    ) -> None:
        convolutions = self.convolutions(in_channels, out_channels, kernel)
        super().__init__(nn.ReLU(inplace), *convolutions, nn.BatchNorm2d(out_channels))

    @staticmethod
    def convolutions(in_channels: int, out_channels: int, kernel: int) -> list[nn.Module]:
        """The modules between the ReLU and the batch norm."""
        return [Convolution(in_channels, out_channels, kernel)]


class Separable(Pcc):
    """A `Pcc` of a depthwise convolution and a 1x1 convolution to `out_channels`.

    No batch norm or ReLU stands between the two: that is our reading.
    """

    @staticmethod
    def convolutions(in_channels: int, out_channels: int, kernel: int) -> list[nn.Module]:
        return [Depthwise(in_channels, kernel), Convolution(in_channels, out_channels, 1)]


class Add(nn.Module):
    """Sum of two maps. Where widths differ, those not `filters` wide go through a 1x1 PCC first."""

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
        # Compiled code is as fast with torch.cat, and exported programs may hold nothing else.
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return torch.cat(pieces, 1)
        joined: Tensor = _DenseConcat.apply(*pieces)
        return joined


class _DenseConcat(torch.autograd.Function):
    """`torch.cat` whose backward gives each piece a dense gradient, in the output's memory format.

    The backward of `torch.cat` itself gives slices of one tensor, on which the backward of batch
    norm is many times slower.
    """

    @staticmethod
    def forward(ctx: Any, *pieces: Tensor) -> Tensor:
        joined = torch.cat(pieces, 1)
        ctx.widths = [piece.shape[1] for piece in pieces]
        last = joined.is_contiguous(memory_format=torch.channels_last)
        ctx.memory_format = torch.channels_last if last else torch.contiguous_format
        return joined

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            piece.contiguous(memory_format=ctx.memory_format)
            for piece in torch.split(gradient, ctx.widths, 1)
        )
