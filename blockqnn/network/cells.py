"""The modules that layer codes stand for: convolutions, sums, concatenations.

Maps are (N, C, H, W); all of these keep height and width.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


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
        slow = self.kernel_size == (5, 5) and x.device.type == "cpu"
        if slow and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            weight = self.weight
            if torch.is_autocast_enabled("cpu"):
                half = torch.get_autocast_dtype("cpu")
                x, weight = x.to(half), weight.to(half)
            y: Tensor = _Depthwise5.apply(x, weight)
            return y
        return super().forward(x)


class _Depthwise5(torch.autograd.Function):
    """A 5x5 depthwise convolution whose weights get their gradient in columns of at most three.

    For more, torch's kernel takes a CPU many times as long (benchmarks/speed/separable_speed.py).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return nn.functional.conv2d(x, weight, padding=2, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = _gradients(gradient, x, weight, (2, 2), [True, False, False])[0]
        if ctx.needs_input_grad[1]:
            of_weight = _of_weight5(gradient, x)
        return of_x, of_weight


def _of_weight5(gradient: Tensor, x: Tensor) -> Tensor:
    """The gradient of a 5x5 depthwise convolution's weights: of three columns, and of two."""
    channels = x.shape[1]
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    parts = []
    for column, width in ((0, 3), (3, 2)):
        window = x.new_empty(channels, 1, 5, width)
        seen = nn.functional.pad(x, (2 - column, width - 3 + column))
        seen = seen.contiguous(memory_format=torch.channels_last)
        parts.append(_gradients(gradient, seen, window, (2, 0), [False, True, False])[1])
    return torch.cat(parts, 3)


def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int], wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """The wanted gradients of a depthwise convolution: by its input, its weights and its bias."""
    shape = ([1, 1], padding, [1, 1], False, [0, 0], len(weight))
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, *shape, wanted
    )
    return found


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


class AveragePool(nn.AvgPool2d):
    """Means of what a window holds of the map; what lies beyond its border does not count."""

    def __init__(self, kernel: int) -> None:
        super().__init__(kernel, stride=1, padding=kernel // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        # torch's own kernel takes a CPU eight times as long as a convolution by ones, both ways
        slow = x.device.type == "cpu" and torch.is_grad_enabled()
        if slow and not torch.compiler.is_compiling():
            y: Tensor = _ByOnes.apply(x, self.kernel_size)
            return y
        return super().forward(x)


class _ByOnes(torch.autograd.Function):
    """Average pooling as a convolution by ones, divided by the pixels of each window."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, side: int) -> Tensor:
        ctx.side, ctx.counts = side, _window_counts(*x.shape[1:], side, x.dtype)
        means: Tensor = _sums(x, side) / ctx.counts
        return means

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _sums(gradient / ctx.counts, ctx.side), None


def _sums(x: Tensor, side: int) -> Tensor:
    """Sums of windows around each pixel, (N, C, H, W), in the precision of `x`."""
    channels = x.shape[1]
    with torch.autocast("cpu", enabled=False):
        ones = x.new_ones(channels, 1, side, side)
        sums: Tensor = nn.functional.conv2d(x, ones, padding=side // 2, groups=channels)
        return sums


@lru_cache(maxsize=64)
def _window_counts(channels: int, height: int, width: int, side: int, dtype: torch.dtype) -> Tensor:
    """How many pixels of the map each window holds, (1, C, H, W)."""
    counts = _sums(torch.ones(1, 1, height, width), side).expand(1, channels, height, width)
    return counts.to(dtype).contiguous(memory_format=torch.channels_last)


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
