"""Some real steps of a final training, as `python -m blockqnn.estimate.some_steps`.

It reads a `StepsRequest` as JSON from standard input, trains on the real images for some seconds
with batches of two sizes, and writes `Steps` to standard output. Nothing is kept.
"""

import json
import sys
import time
from dataclasses import replace
from typing import TypedDict

import psutil
import torch
from torch import nn

from blockqnn.data.feed import ALONE
from blockqnn.data.images import Images, open_images
from blockqnn.errors import UserError
from blockqnn.estimate.memory import MemoryWatch
from blockqnn.network import network_of
from blockqnn.network.timm_networks import build_comparator
from blockqnn.params import plan_from_dict
from blockqnn.settings import Plan
from blockqnn.space import LONGEST, Block, Shape
from blockqnn.training.devices import resolve
from blockqnn.training.trainer import Interrupted, Trainer

SECONDS = 6.0
"""Seconds of steps with batches of one size."""

FIRST = 2
"""Steps before that, in which memory is taken and kernels are chosen."""

LEAST = 3
"""Fewest steps that are measured, whatever they take."""

CPU_VALUES = 128 * 32 * 32
"""Most pixels of all images of a step on a CPU: a larger batch takes longer in proportion."""


class StepsRequest(TypedDict):
    """What is to be trained, and where."""

    plan: dict[str, object]
    """The plan as plain values."""
    block: str | None
    """Code of a block; None for a timm model."""
    shape: dict[str, object]
    """What the block's network has of its own: a `Shape` as plain values."""
    timm: str | None
    """Name of a timm model; None for a block."""
    device: str
    threads: int


class Steps(TypedDict):
    """What a step takes, as `fixed + each * images` has it."""

    seconds_fixed: float
    seconds_each: float
    memory_fixed: float
    """Bytes of main memory, loaders among them."""
    memory_each: float
    device_memory: int | None
    """Bytes of the GPU's memory with the batch of the recipe; None on a CPU."""
    parameters: int


def part_of_batch(plan: Plan) -> int:
    """Images that one process of a training computes at a time."""
    return plan.recipe.batch // (plan.workers.processes * plan.recipe.accumulate)


def measure(request: StepsRequest) -> Steps:
    """Train some steps. Raises `SettingsError` for what cannot be trained."""
    plan = plan_from_dict(request["plan"])
    device = resolve(request["device"])
    torch.set_num_threads(request["threads"])
    images = open_images(plan.data, plan.seed, everything=True)
    largest = part = part_of_batch(plan)
    if device.type == "cpu":
        largest = min(part, max(4, CPU_VALUES // images.facts.image_size**2))
    sizes = sorted({max(2, largest // 4 * 2), max(2, largest // 2 * 2)})  # even, for mixup
    measured = [_steps(plan, request, images, device, size) for size in sizes]
    seconds, memory = (_line(sizes, values) for values in zip(*measured, strict=True))
    gpu = None
    if device.type == "cuda":
        gpu = torch.cuda.max_memory_reserved(device)
    count = sum(weight.numel() for weight in _network(plan, request, images).parameters())
    return {
        "seconds_fixed": seconds[0],
        "seconds_each": seconds[1],
        "memory_fixed": memory[0],
        "memory_each": memory[1],
        "device_memory": gpu,
        "parameters": count,
    }


def _line(sizes: list[int], values: tuple[float, ...]) -> tuple[float, float]:
    """What values that grow with a size are at 0, and by how much they grow: neither below 0."""
    if len(sizes) == 1:
        return 0.0, values[0] / sizes[0]
    each = (values[-1] - values[0]) / (sizes[-1] - sizes[0])
    each = min(max(0.0, each), values[-1] / sizes[-1])
    return values[-1] - each * sizes[-1], each


def _network(plan: Plan, request: StepsRequest, images: Images) -> nn.Module:
    facts, recipe = images.facts, plan.recipe
    if request["block"] is not None:
        block, shape = Block.parse(request["block"], LONGEST), Shape.from_dict(request["shape"])
        network = replace(plan.network, match="none", match_repeats=()).shaped(shape)
        return network_of(network, block, facts, recipe, 0)
    return build_comparator(
        request["timm"] or "",
        num_classes=len(facts.classes),
        in_channels=facts.in_channels,
        image_size=facts.image_size,
        drop_path=recipe.drop_path,
        dropout=recipe.dropout,
    )


def _steps(
    plan: Plan, request: StepsRequest, images: Images, device: torch.device, size: int
) -> tuple[float, float]:
    """Seconds of a step with so many images, and the bytes that this process and its loaders have
    then.
    """
    recipe = replace(plan.recipe, batch=size, accumulate=1, compile=False, sync_batch_norm=False)
    feed = images.feed(recipe, 0, device, ALONE)
    times: list[float] = []

    def over() -> bool:
        times.append(time.perf_counter())
        done = len(times) - FIRST
        return done > LEAST and times[-1] - times[FIRST] > SECONDS

    trainer = Trainer(
        network=_network(plan, request, images),
        recipe=recipe,
        feed=feed,
        seed=0,
        device=device,
        stop=over,
    )
    with MemoryWatch() as watch:
        try:
            trainer.run()
        except Interrupted:
            pass
        finally:
            feed.close()
    measured = times[FIRST:] if len(times) > FIRST + 1 else times
    seconds = (measured[-1] - measured[0]) / max(1, len(measured) - 1)
    return seconds, watch.processes + psutil.Process().memory_info().rss


def main() -> None:
    """Answer the request on standard input; what a user can mend is one sentence."""
    try:
        json.dump(measure(json.load(sys.stdin)), sys.stdout)
    except UserError as error:
        json.dump({"error": str(error)}, sys.stdout)


if __name__ == "__main__":
    main()
