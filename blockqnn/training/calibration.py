"""Measures what layers cost on a device, as `python -m blockqnn.training.calibration SECONDS`.

It reads a `Request` as JSON from standard input and writes a `DeviceCost` to standard output.
Layers are measured in shapes that they have in networks of the space, again and again until the
time is over: the quickest pass is the one that no neighbour disturbed.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

import numpy as np
import torch
from torch import Tensor, nn

from blockqnn.cost import DeviceCost, NetworkLayer
from blockqnn.cost.device import (
    Prices,
    Terms,
    among_others,
    fit_prices,
    layer_kind,
    layer_terms,
    update_terms,
)
from blockqnn.network import build_network
from blockqnn.network.cells import Add, AveragePool, Concat, Convolution, Pcc, Separable
from blockqnn.params import settings_from_dict
from blockqnn.settings import NetworkSettings, Settings, SpaceSettings
from blockqnn.space import AS_SET, Block
from blockqnn.training.device_prices import Request
from blockqnn.training.devices import device_name, resolve
from blockqnn.training.optimisation import create_optimizer
from blockqnn.training.precision import mixed_precision, resolve_precision
from blockqnn.zoo import BLOCKS

ROUNDS = 2
"""Fewest rounds, whatever they take: in the first one, memory is taken and kernels are chosen."""
SHAPES = 12
"""Most shapes of one kind of layer that are measured."""
NETWORKS = 10
"""Networks that are measured as a whole, since layers alone are quicker than among others."""
SAMPLED = 100
"""Random blocks whose layers are candidates to be measured."""
LARGEST = 10**8
"""Multiply-accumulates an image above which a network is not among these."""
CPU_VALUES = 64 * 32 * 32
"""Most pixels of all images of a measured step on a CPU, where more take longer in proportion."""
Design = tuple[NetworkSettings, Block]
"""A block and the network that is stacked from it."""
IN_A_ROW = 10
"""Passes on a GPU between two waits for it, as many wait in line in a training."""


def calibrate(request: Request, seconds: float) -> DeviceCost:
    """Measure a device for about so many seconds; torch's threads are set for the whole process.

    Raises `SettingsError` for settings that are none and a device that is not there.
    """
    settings = settings_from_dict(request["settings"])
    device = resolve(request["device"])
    torch.set_num_threads(request["threads"])
    torch.manual_seed(0)
    images = {
        "num_classes": request["num_classes"],
        "in_channels": request["in_channels"],
        "image_size": request["image_size"],
    }
    designs = _typical_designs(settings.network, settings.space, images)
    shapes = _typical_layers(designs, images)
    designs = _of_usual_size(designs, images)
    meter = Meter(device, settings, request["image_size"])
    layers = [meter.layer(shape) for shape in shapes]
    whole = designs[:NETWORKS]
    networks = [meter.network(*design, images) for design in whole]
    meter.run([*layers, *networks], seconds)

    runs = [list(network.layers(block, **images)) for network, block in whole]

    def prices(of: Callable[["Subject"], float], terms: Terms = layer_terms) -> Prices:
        alone = fit_prices(shapes, [of(layer) for layer in layers], terms)
        return among_others(alone, runs, [of(network) for network in networks], terms)

    return DeviceCost(
        device=device_name(device),
        precision=resolve_precision(device, settings.recipe.precision),
        threads=request["threads"] if device.type == "cpu" else None,
        batch=settings.recipe.batch,
        latency_batch=settings.latency.batch,
        training=prices(lambda subject: 1e6 * subject.step / meter.batch),
        latency=prices(lambda subject: 1e6 * subject.forward / settings.latency.batch),
        update=prices(lambda s: 1e6 * s.update / settings.recipe.batch, update_terms),
    )


def _typical_designs(
    network: NetworkSettings, space: SpaceSettings, images: dict[str, int]
) -> list[Design]:
    """Random blocks of the space, and those with a name, in shapes that networks may have: where
    networks are matched in cost, as wide as that makes them.
    """
    rng = np.random.default_rng(0)
    offered = space.shapes(len(network.filters)) or (AS_SET,)
    shapes = cycle(offered[place] for place in rng.permutation(len(offered)))
    blocks = [space.build().sample(rng) for _ in range(SAMPLED)]
    designs = []
    for block in (*blocks, *BLOCKS.values()):
        own = network.shaped(shape := next(shapes))
        if network.match != "none":  # what seconds it takes is not known yet
            own = replace(network, match="macs").matched(
                block, BLOCKS["plain"], shape=shape, prices=None, **images
            )
        designs.append((own, block))
    return designs


def _of_usual_size(designs: Sequence[Design], images: dict[str, int]) -> list[Design]:
    """Those whose networks are not too large to be measured, the smallest in any case."""
    costs = [own.cost(block, prices=None, **images).macs for own, block in designs]
    limit = max(LARGEST, sorted(costs)[:NETWORKS][-1])
    return [design for design, macs in zip(designs, costs, strict=True) if macs <= limit]


def _typical_layers(designs: Sequence[Design], images: dict[str, int]) -> list[NetworkLayer]:
    """Layers of these networks: of each kind a few, from the cheapest to the dearest; of kinds
    that only large networks have, the cheapest.
    """
    usual = _by_kind(_of_usual_size(designs, images), images)
    typical = []
    for kind, shapes in sorted(_by_kind(designs, images).items()):
        ranked = sorted(usual.get(kind, shapes), key=lambda layer: (layer_terms(layer)[0], layer))
        if kind not in usual:
            ranked = ranked[:SHAPES]
        places = np.linspace(0, len(ranked) - 1, min(SHAPES, len(ranked))).round().astype(int)
        typical += [ranked[place] for place in places]
    return typical


def _by_kind(designs: Sequence[Design], images: dict[str, int]) -> dict[str, set[NetworkLayer]]:
    """All layers of networks by their kind."""
    found: dict[str, set[NetworkLayer]] = {}
    for network, block in designs:
        for _, layers in network.layers(block, **images):
            for layer in layers:
                found.setdefault(layer_kind(layer), set()).add(layer)
    return found


@dataclass
class Subject:
    """What is measured, and the fewest seconds so far."""

    module: nn.Module
    reads: tuple[tuple[int, int], ...]
    """Channels and side in pixels of the maps that it reads."""
    gradient: bool
    """Whether a training step computes the gradient of what it reads."""
    step: float = float("inf")
    """Seconds of a training step: forward and backward."""
    forward: float = float("inf")
    """Seconds of a forward pass of a trained network."""
    update: float = float("inf")
    """Seconds of an optimiser's step."""


class Meter:
    """Measures subjects on one device, in turn."""

    def __init__(self, device: torch.device, settings: Settings, image_size: int) -> None:
        self._device = device
        self._recipe = settings.recipe
        self._latency_batch = settings.latency.batch
        self.batch = settings.recipe.batch
        if device.type == "cpu":
            self.batch = max(2, min(self.batch, CPU_VALUES // image_size**2))
        half = resolve_precision(device, self._recipe.precision)
        self._values = torch.randn(0, device=device, dtype=getattr(torch, half))

    def layer(self, shape: NetworkLayer) -> Subject:
        """One layer of that shape."""
        kind, kernel, width, made, size = shape
        module: nn.Module
        reads: tuple[tuple[int, int], ...] = ((width, size),)
        if kind == "stem":
            module = nn.Sequential(Convolution(width, made, kernel), nn.BatchNorm2d(made))
        elif kind == "pcc":
            module = Pcc(width, made, kernel)
        elif kind == "separable":
            module = Separable(width, made, kernel)
        elif kind == "max_pool":
            module = nn.MaxPool2d(kernel, stride=1, padding=kernel // 2)
        elif kind == "avg_pool":
            module = AveragePool(kernel)
        elif kind == "pool":
            module, reads = nn.MaxPool2d(2), ((width, 2 * size),)
        elif kind == "add":
            module, reads = Add((made, made), made), ((made, size), (made, size))
        elif kind == "concat":
            module, reads = Concat(), ((made // 2, size), (made - made // 2, size))
        else:
            linear = nn.Linear(width, made)
            module = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
        return self.subject(module, reads, gradient=kind != "stem")

    def network(self, network: NetworkSettings, block: Block, images: dict[str, int]) -> Subject:
        """A whole network."""
        channels = images["in_channels"]
        module = build_network(
            block,
            filters=network.filters,
            repeats=network.repeats,
            num_classes=images["num_classes"],
            in_channels=channels,
            skeleton=network.skeleton,
            connections=network.connections,
        )
        return self.subject(module, ((channels, images["image_size"]),), gradient=False)

    def subject(
        self, module: nn.Module, reads: tuple[tuple[int, int], ...], gradient: bool
    ) -> Subject:
        """A module that reads maps of so many channels and pixels a side; with their `gradient`."""
        module = module.to(self._device).to(memory_format=torch.channels_last)
        return Subject(module, reads, gradient)

    def run(self, subjects: Sequence[Subject], seconds: float) -> None:
        """Measure all subjects for so many seconds, and `ROUNDS` times at least."""
        end, rounds = time.monotonic() + seconds, 0
        while rounds < ROUNDS or time.monotonic() < end:
            for subject in subjects:
                if rounds >= ROUNDS and time.monotonic() >= end:
                    return
                self.measure(subject)
            rounds += 1

    def measure(self, subject: Subject) -> None:
        """Take a training step, some optimiser steps and some forward passes."""
        module = subject.module
        inputs = [self._maps(self.batch, *read, subject.gradient) for read in subject.reads]
        wanted = [each for each in (*inputs, *module.parameters()) if each.requires_grad]

        def step() -> None:
            with mixed_precision(self._device, self._recipe.precision):
                made = module(*inputs)
            torch.autograd.grad(made, wanted, torch.ones_like(made))

        module.train()
        subject.step = min(subject.step, self._seconds(step))
        if any(weight.requires_grad for weight in module.parameters()):
            subject.update = min(subject.update, self._update(module))
        module.eval()
        with torch.inference_mode(), mixed_precision(self._device, self._recipe.precision):
            inputs = [self._maps(self._latency_batch, *read, False) for read in subject.reads]
            subject.forward = min(
                subject.forward, *(self._seconds(lambda: module(*inputs)) for _ in range(5))
            )

    def _update(self, module: nn.Module) -> float:
        """Seconds of the quickest of three optimiser steps, the first of which takes memory."""
        optimizer = create_optimizer(module, self._recipe, 1e-9)  # the weights stay what they are
        for weight in module.parameters():
            weight.grad = torch.ones_like(weight)
        seconds = min(self._seconds(optimizer.step) for _ in range(3))
        module.zero_grad(set_to_none=True)
        return seconds

    def _maps(self, batch: int, channels: int, size: int, gradient: bool) -> Tensor:
        """Random maps (N, C, H, W), channels last; all of a kind share their memory."""
        count = batch * channels * size * size
        if len(self._values) < count:
            self._values = torch.randn(count, device=self._device).to(self._values.dtype)
        maps = self._values[:count].view(batch, size, size, channels).permute(0, 3, 1, 2)
        return maps.detach().requires_grad_(gradient)

    def _seconds(self, run: Callable[[], object]) -> float:
        if self._device.type == "cpu":
            begun = time.perf_counter()
            run()
            return time.perf_counter() - begun
        wait = torch.get_device_module(self._device).synchronize
        wait()
        begun = time.perf_counter()
        for _ in range(IN_A_ROW):
            run()
        wait()
        return (time.perf_counter() - begun) / IN_A_ROW


def main() -> None:
    """Calibrate as standard input asks."""
    json.dump(calibrate(json.load(sys.stdin), float(sys.argv[1])).to_dict(), sys.stdout)


if __name__ == "__main__":
    main()
