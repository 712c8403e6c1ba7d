"""A training step of networks with separable convolutions: by our gradients, and by torch's own.

    python -m benchmarks.speed.separable_speed [--quick]

The best and the fifth block of docs/results/cifar10-fast.csv in networks of 16, 32 and 64 filters:
forward, backward and loss in the precision that the machine trains in, one thread. `torch` has
plain grouped convolutions and poolings; `torch, 5x5 in float32` is the best that was to be had of
these where bfloat16 is fast; `plain` is the block of two plain convolutions. CPU milliseconds, the
best of several rounds, all variants in each. It matters on CPUs alone.
"""

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import machine
from blockqnn.network import build_network
from blockqnn.network.cells import AveragePool, Convolution, Depthwise
from blockqnn.space import Block
from blockqnn.training.precision import mixed_precision, resolve_precision
from blockqnn.zoo import BLOCKS

FOUND = Path(__file__).parents[2] / "docs" / "results" / "cifar10-fast.csv"
PLACES = (1, 5)
DEVICE = torch.device("cpu")


class InFloat32(Convolution):
    """A convolution in float32 also where others are in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


def network(block: Block) -> nn.Module:
    """The network of a block, with the same weights every time."""
    torch.manual_seed(0)
    built = build_network(block, filters=(16, 32, 64), repeats=1, num_classes=10)
    return built.to(memory_format=torch.channels_last)


def by_torch(module: nn.Module, of_five: type[Convolution] = Convolution) -> nn.Module:
    """The module with torch's own gradients; 5x5 depthwise convolutions become `of_five`."""
    for parent in list(module.modules()):
        for name, part in parent.named_children():
            new: Any = None
            if isinstance(part, Depthwise):
                kernel = part.kernel_size[0]
                kind = of_five if kernel == 5 else Convolution
                new = kind(part.in_channels, part.in_channels, kernel, part.in_channels)
                new.load_state_dict(part.state_dict())
            elif isinstance(part, AveragePool):
                new = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
            if new is not None:
                setattr(parent, name, new.to(memory_format=torch.channels_last))
    return module


def step(module: nn.Module, images: Tensor, precision: str) -> float:
    """CPU milliseconds of one training step but for the optimiser's part."""
    labels = torch.arange(len(images)) % 10
    begun = time.process_time()
    with mixed_precision(DEVICE, precision):
        logits = module(images)
    module.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(logits.float(), labels).backward()
    return 1e3 * (time.process_time() - begun)


def main() -> None:
    """Print a line a block, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="2 rounds of small batches")
    options = parser.parse_args()
    rounds, batch = (2, 4) if options.quick else (10, 128)
    torch.set_num_threads(1)
    precision = resolve_precision(DEVICE, "auto")
    print(f"separable convolutions: {machine.describe()}; batch {batch}, {precision}", flush=True)
    rows = list(csv.DictReader(FOUND.open()))
    images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    for place in PLACES:
        block = Block.parse(rows[place - 1]["code"])
        networks = {
            "ours": network(block),
            "torch, 5x5 in float32": by_torch(network(block), InFloat32),
            "torch": by_torch(network(block)),
            "plain": network(BLOCKS["plain"]),
        }
        times = [
            {name: step(each, images, precision) for name, each in networks.items()}
            for _ in range(rounds)
        ]
        best = {name: min(row[name] for row in times) for name in networks}
        shown = ", ".join(f"{name} {ms:.0f} ms" for name, ms in best.items())
        ratios = [best[name] / best["ours"] for name in list(networks)[1:3]]
        print(f"block {place}: {shown}")
        print(
            f"ratio {ratios[0]:.2f} of torch with 5x5 in float32, {ratios[1]:.2f} of torch",
            flush=True,
        )


if __name__ == "__main__":
    main()
