"""Images a second: our training path against a plain PyTorch loop on the same block network.

    python -m benchmarks.speed.training_speed [--quick] [--blocks S B median] [--repeats 1]

Plain: a DataLoader over per-image ToTensor and Normalize, float32, default layout, `torch.cat`,
all threads in one process, ordinary Adam, `.item()` at every step. Ours: `Trainer` as the search
runs it, one process a core with one thread each and `KEEP_MEMORY` (on a GPU: one process), the
sum of their rates. Random 32x32 images, batches of 256 and filters 32/64/128 as in the paper, one
block a stage so that a round takes seconds (`--repeats 4` is the paper's). `median` is the block
of median MACs among 101 random ones. Every process is warmed up; the variants take turns, and the
medians over the rounds are compared. The ladder adds one trick after the other to the plain loop.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from benchmarks import machine
from blockqnn.cost import network_cost
from blockqnn.data import Dataset, ImageSet, MemoryFeed
from blockqnn.network import build_network
from blockqnn.network.cells import Concat
from blockqnn.settings import Recipe
from blockqnn.space import Block, Space
from blockqnn.training.devices import resolve, usable_cores
from blockqnn.training.keep_memory import KEEP_MEMORY
from blockqnn.training.precision import mixed_precision
from blockqnn.training.trainer import Trainer
from blockqnn.zoo import BLOCKS

FILTERS = (32, 64, 128)
CLASSES = 100


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to train."""

    name: str
    channels_last: bool = False
    dense_gradients: bool = False
    bfloat16: bool = False
    trainer: bool = False
    keep_memory: bool = False
    processes: int = 1
    threads: int = usable_cores()


PLAIN = Variant(name="plain loop")
ON_GPU = torch.cuda.is_available()
OURS = Variant(
    name="ours" if ON_GPU else "ours: + a process a core",
    trainer=True,
    keep_memory=not ON_GPU,
    processes=1 if ON_GPU else usable_cores(),
    threads=1,
)
LADDER = (
    PLAIN,
    Variant(name="+ channels_last", channels_last=True),
    Variant(name="+ dense gradients of concat", channels_last=True, dense_gradients=True),
    Variant(
        name="+ bfloat16 autocast, where fast",
        channels_last=True,
        dense_gradients=True,
        bfloat16=True,
    ),
    Variant(name="+ Trainer: uint8 tensor, fused Adam, no .item()", trainer=True),
    Variant(name="+ malloc keeps memory", trainer=True, keep_memory=True),
    OURS,
)


class PlainConcat(nn.Module):
    """The plain concatenation that `Concat` replaces."""

    def forward(self, *pieces: Tensor) -> Tensor:
        return torch.cat(pieces, 1)


class Pictures(TorchDataset[tuple[Tensor, int]]):
    """Images one by one, as torchvision's data sets hand them out."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        self.pixels, self.labels = pixels, labels
        half = (0.5, 0.5, 0.5)
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(half, half)]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.pixels[index]), int(self.labels[index])


def block_named(name: str, repeats: int) -> Block:
    """A block of the zoo, or the random one of median MACs."""
    if name in BLOCKS:
        return BLOCKS[name]
    rng = np.random.default_rng(0)
    sampled = [Space().sample(rng) for _ in range(101)]

    def macs(block: Block) -> int:
        return network_cost(block, filters=FILTERS, repeats=repeats, num_classes=CLASSES).macs

    return sorted(sampled, key=macs)[50]


def plain_epoch(
    network: nn.Module, variant: Variant, pictures: Pictures, batch: int, device: torch.device
) -> Callable[[], None]:
    """One pass of the loop that every tutorial has, with the ladder's first tricks if asked for."""
    for module in list(network.modules()):
        if isinstance(module, nn.ReLU):
            module.inplace = False
        for name, child in module.named_children():
            if isinstance(child, Concat) and not variant.dense_gradients:
                module.add_module(name, PlainConcat())
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format
    network.to(device, memory_format=layout).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    loader = DataLoader(pictures, batch, shuffle=True)

    def epoch() -> None:
        for images, labels in loader:
            images = images.to(device, memory_format=layout)
            labels = labels.to(device)
            optimizer.zero_grad()
            with mixed_precision(device, "auto" if variant.bfloat16 else "float32"):
                logits = network(images)
            loss = nn.functional.cross_entropy(logits.float(), labels)
            loss.backward()
            optimizer.step()
            loss.item()

    return epoch


def our_epoch(
    network: nn.Module, pictures: Pictures, batch: int, device: torch.device
) -> Callable[[], None]:
    """One pass of `Trainer`; the held-out set is a single image, so that only training counts."""
    images = torch.from_numpy(pictures.pixels).permute(0, 3, 1, 2).contiguous()
    whole = ImageSet(images, torch.from_numpy(pictures.labels))
    one = ImageSet(whole.images[:1], whole.labels[:1])
    middle = torch.full((1, 3, 1, 1), 127.5)
    data = Dataset(
        name="random",
        classes=tuple(map(str, range(CLASSES))),
        train=whole,
        held_out=one,
        test=one,
        mean=middle,
        std=middle,
        fingerprint="",
    ).to(device)
    recipe = Recipe(epochs=1, batch=batch)

    def epoch() -> None:
        feed = MemoryFeed(data, recipe, 0, device)
        Trainer(network=network, recipe=recipe, feed=feed, seed=0, device=device).run()

    return epoch


def serve_rounds(variant: Variant, block: Block, repeats: int, batch: int, seconds: float) -> None:
    """A child process: warm up, then print the images a second of one round for every line read."""
    torch.set_num_threads(variant.threads)
    torch.manual_seed(0)
    device = resolve("auto")
    network = build_network(block, filters=FILTERS, repeats=repeats, num_classes=CLASSES)
    rng = np.random.default_rng(0)

    def prepare(count: int) -> Callable[[], None]:
        pictures = Pictures(
            rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, CLASSES, count)
        )
        if variant.trainer:
            return our_epoch(network, pictures, batch, device)
        return plain_epoch(network, variant, pictures, batch, device)

    warm_up = prepare(batch)
    warm_up()
    begun = time.perf_counter()
    warm_up()
    steps = max(1, round(seconds / (time.perf_counter() - begun)))
    epoch = prepare(steps * batch)
    print("ready", flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        epoch()
        if device.type == "cuda":
            torch.cuda.synchronize()
        print(steps * batch / (time.perf_counter() - begun), flush=True)


class Children:
    """The processes of one variant, which wait for their turns."""

    def __init__(self, variant: Variant, name: str, options: argparse.Namespace) -> None:
        command = [sys.executable, "-m", "benchmarks.speed.training_speed", "--blocks", name]
        command += ["--repeats", str(options.repeats), "--batch", str(options.batch)]
        command += ["--seconds", str(options.seconds), "--child", json.dumps(asdict(variant))]
        threads = str(variant.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        if variant.keep_memory:
            environment |= KEEP_MEMORY
        self.processes = [
            subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(variant.processes)
        ]
        for process in self.processes:
            self._line(process)

    def round(self) -> float:
        """Images a second of all processes together, in one round."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return sum(float(self._line(process)) for process in self.processes)

    def close(self) -> None:
        """Let the processes end."""
        for process in self.processes:
            process.communicate()

    @staticmethod
    def _line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"a measuring process ended with status {process.wait()}")
        return line


def measure(variants: tuple[Variant, ...], name: str, options: argparse.Namespace) -> list[float]:
    """Median images a second of each variant; they take turns."""
    children = []
    try:
        for variant in variants:
            children.append(Children(variant, name, options))
        rates = [[child.round() for child in children] for _ in range(options.rounds)]
    finally:
        for child in children:
            child.close()
    return [median(column) for column in zip(*rates, strict=True)]


def lines(options: argparse.Namespace) -> Iterator[str]:
    """The results as they come."""
    size = f"batch {options.batch}, {options.repeats} block(s) a stage"
    yield f"training speed: {machine.describe()}; {size}"
    for name in options.blocks:
        plain, ours = measure((PLAIN, OURS), name, options)
        rates = f"{plain:.1f} images/s plain, {ours:.1f} ours"
        yield f"block {name}: {rates}: ratio {ours / plain:.2f} (aim 4)"
    if not options.quick and not ON_GPU:
        yield "ladder, block median:"
        previous = 0.0
        for variant, rate in zip(LADDER, measure(LADDER, "median", options), strict=True):
            step = f"x{rate / previous:.2f}" if previous else ""
            yield f"  {variant.name:50} {rate:8.1f} images/s  {step}"
            previous = rate


def main() -> None:
    """Print one line a result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="one small block, to see that it works"
    )
    parser.add_argument("--blocks", nargs="+", default=["S", "B", "median"])
    parser.add_argument("--repeats", type=int, default=1, help="blocks a stage")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of one round, about")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        variant = Variant(**json.loads(options.child))
        block = block_named(options.blocks[0], options.repeats)
        serve_rounds(variant, block, options.repeats, options.batch, options.seconds)
        return
    if options.quick:
        options.blocks, options.batch, options.rounds, options.seconds = ["residual"], 16, 1, 0.2
    for line in lines(options):
        print(line, flush=True)


if __name__ == "__main__":
    main()
