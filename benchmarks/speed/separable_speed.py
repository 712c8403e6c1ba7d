"""A training step of a block with separable convolutions against the same block with plain ones.

    python -m benchmarks.speed.separable_speed [--quick]

One block in the shapes it has in the first and last stage of the paper's network, forward and
backward in bfloat16 where the machine trains in it, one thread. `all bfloat16` is the separable
block without its 5x5 depthwise convolutions in float32, which is what `Depthwise` is for; it
matters on CPUs alone. CPU milliseconds, the best of several rounds, all variants in each.
"""

import argparse
import time

import torch
from torch import Tensor, nn

from benchmarks import machine
from blockqnn.network.block_module import BlockModule
from blockqnn.network.cells import Convolution, Depthwise
from blockqnn.space import Block
from blockqnn.training.precision import mixed_precision, resolve_precision

PLAIN = "(1,4,0,0,0)(2,1,3,1,0)(3,1,3,2,0)(4,1,5,1,0)(5,5,0,3,4)(6,1,1,1,0)(7,3,3,1,0)(8,7,0,0,0)"
SEPARABLE = PLAIN.replace("2,1,3", "2,8,3").replace("3,1,3", "3,8,3").replace("4,1,5", "4,8,5")
SHAPES = ((32, 32, 32), (96, 32, 32), (384, 128, 8))
"""Shapes of the block: channels read, filters and pixels a side."""
DEVICE = torch.device("cpu")


def block(code: str, channels: int, filters: int) -> BlockModule:
    """The module of a block, with the same weights every time."""
    torch.manual_seed(0)
    module = BlockModule(Block.parse(code), channels, filters)
    return module.to(memory_format=torch.channels_last)


def all_in_one_precision(module: BlockModule) -> BlockModule:
    """The module with plain grouped convolutions instead of `Depthwise`."""
    for cell in module.layers.values():
        for name, part in cell.named_children():
            if isinstance(part, Depthwise):
                kernel = part.kernel_size[0]
                plain = Convolution(part.in_channels, part.in_channels, kernel, part.in_channels)
                plain.load_state_dict(part.state_dict())
                setattr(cell, name, plain.to(memory_format=torch.channels_last))
    return module


def step(module: nn.Module, images: Tensor, precision: str) -> float:
    """CPU milliseconds of one training step."""
    begun = time.process_time()
    with mixed_precision(DEVICE, precision):
        maps = module(images)
    maps.backward(torch.ones_like(maps))
    return 1e3 * (time.process_time() - begun)


def main() -> None:
    """Print one line a shape, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="2 rounds of small batches")
    options = parser.parse_args()
    rounds, batch = (2, 4) if options.quick else (10, 64)
    torch.set_num_threads(1)
    precision = resolve_precision(DEVICE, "auto")
    print(f"separable convolutions: {machine.describe()}; batch {batch}, {precision}", flush=True)
    plain_ratios, single_ratios = [], []
    for channels, filters, side in SHAPES:
        modules = {
            "separable": block(SEPARABLE, channels, filters),
            "plain": block(PLAIN, channels, filters),
            "all bfloat16": all_in_one_precision(block(SEPARABLE, channels, filters)),
        }
        images = torch.randn(batch, channels, side, side).requires_grad_()
        images = images.to(memory_format=torch.channels_last)
        times = [{n: step(m, images, precision) for n, m in modules.items()} for _ in range(rounds)]
        best = {name: min(row[name] for row in times) for name in modules}
        plain_ratios.append(best["plain"] / best["separable"])
        single_ratios.append(best["all bfloat16"] / best["separable"])
        shape = f"{channels} channels, {filters} filters, {side}x{side}"
        print(f"{shape}: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in best.items()))
    print(
        f"ratio {', '.join(f'{ratio:.2f}' for ratio in plain_ratios)} of plain convolutions, "
        f"{', '.join(f'{ratio:.2f}' for ratio in single_ratios)} of all in bfloat16"
    )


if __name__ == "__main__":
    main()
