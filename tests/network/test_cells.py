"""Faster ways to a gradient give the same gradient as torch's own."""

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, conv2d

from blockqnn.network.cells import AveragePool, Depthwise

SHAPES = [(2, 3, 5, 7), (3, 16, 8, 8), (2, 40, 9, 4), (1, 1, 1, 1)]
"""Of maps: fewer channels than a register holds, as many, and a part more; others than squares."""


def maps(shape, dtype, layout=torch.channels_last):
    torch.manual_seed(0)
    both = torch.randn(2, *shape, dtype=torch.float64)
    return [x.to(dtype).contiguous(memory_format=layout) for x in both]


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "off"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
class TestExact:
    def test_a_depthwise_convolution(self, shape, dtype, off, layout):
        x, gradient = maps(shape, dtype, layout)
        cell = Depthwise(shape[1], 5).to(dtype)
        x.requires_grad_()
        found = torch.autograd.grad(cell(x), [x, cell.weight], gradient)
        plain = conv2d(x, cell.weight, padding=2, groups=shape[1])
        wanted = torch.autograd.grad(plain, [x, cell.weight], gradient)
        assert torch.equal(cell(x), plain)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=off, atol=off)

    def test_an_average_pooling(self, shape, dtype, off, layout):
        x, gradient = maps(shape, dtype, layout)
        x.requires_grad_()
        found, wanted = (
            pool(x) for pool in (AveragePool(3), nn.AvgPool2d(3, 1, 1, count_include_pad=False))
        )
        torch.testing.assert_close(found, wanted, rtol=off, atol=off)
        pair = [torch.autograd.grad(y, x, gradient)[0] for y in (found, wanted)]
        torch.testing.assert_close(*pair, rtol=off, atol=off)


def test_in_bfloat16_they_are_as_near_as_bfloat16_is():
    shape = (8, 32, 8, 8)
    x, gradient = maps(shape, torch.bfloat16)
    x.requires_grad_()
    cell = Depthwise(32, 5)
    with torch.autocast("cpu", torch.bfloat16):
        made, pooled = cell(x), AveragePool(3)(x)
    assert made.dtype == pooled.dtype == torch.bfloat16
    found = torch.autograd.grad(made, [x, cell.weight], gradient)
    half = cell.weight.detach().bfloat16().float().requires_grad_()
    exact = x.detach().float().requires_grad_()
    wanted = torch.autograd.grad(
        conv2d(exact, half, padding=2, groups=32), [exact, half], gradient.float()
    )
    pool = avg_pool2d(exact, 3, 1, 1, count_include_pad=False)
    pairs = [*zip(found, wanted, strict=True), (pooled, pool)]
    for one, other in pairs:
        error = (one.float() - other).norm() / other.norm()
        assert error < 4e-3  # half of bfloat16's last digit
    assert found[1].dtype == torch.float32


def test_where_no_gradient_is_wanted_they_are_torchs_own():
    x, _ = maps((2, 8, 6, 6), torch.float32)
    with torch.no_grad():
        assert torch.equal(AveragePool(3)(x), avg_pool2d(x, 3, 1, 1, count_include_pad=False))
    frozen = Depthwise(8, 5).requires_grad_(False)
    x.requires_grad_()
    (found,) = torch.autograd.grad(frozen(x).sum(), x)
    (wanted,) = torch.autograd.grad(conv2d(x, frozen.weight, padding=2, groups=8).sum(), x)
    torch.testing.assert_close(found, wanted)
