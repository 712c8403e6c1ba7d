"""How wide a timm model has to be, as `python -m blockqnn.training.comparator_width`.

It reads a `WidthRequest` as JSON from standard input and writes the widths to standard output.
Multiply-accumulates and parameters are counted. Seconds and latency are measured, in turn with
block plain's network, so that a busy neighbour slows both.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import nn

from blockqnn.cost.match import STEP, TOLERANCE, WIDEST
from blockqnn.errors import UserError
from blockqnn.network import build_network
from blockqnn.network.timm_networks import build_comparator, count_macs, usual_widths, with_widths
from blockqnn.params import settings_from_dict
from blockqnn.settings import Settings
from blockqnn.training.device_prices import WidthRequest
from blockqnn.training.devices import resolve
from blockqnn.training.optimisation import create_optimizer
from blockqnn.training.precision import mixed_precision
from blockqnn.zoo import BLOCKS

PAIRS = 6
"""Measurements of each of two networks, in turn; the quickest counts."""

Widths = tuple[int, ...]


def fitting_widths(
    ratio: Callable[[Widths], float], usual: Widths, tolerance: float = TOLERANCE
) -> Widths:
    """Return widths, multiples of 8 in about the proportion of the `usual` ones, for which `ratio`
    is nearest to 1 of all that were tried: within `tolerance`, where steps of 8 are fine enough.

    `ratio` gives the cost beside the one aimed at; wider networks cost more.
    """
    known: dict[Widths, float] = {}

    def off(widths: Widths) -> float:
        if widths not in known:
            known[widths] = math.log(ratio(widths))
        return known[widths]

    def scaled(width: int) -> Widths:
        return tuple(max(STEP, round(width * w / usual[0] / STEP) * STEP) for w in usual)

    low, high = STEP, STEP
    while high < WIDEST and off(scaled(high)) < 0:
        low, high = high, 2 * high
    while high - low > STEP:
        middle = (low + high) // 2 // STEP * STEP
        low, high = (middle, high) if off(scaled(middle)) < 0 else (low, middle)
    widths, widest = list(scaled(low)), scaled(high)
    for stage in range(len(widths)):  # the last one is the finest screw: it has the fewest pixels
        while widths[stage] < widest[stage] and off(tuple(widths)) < 0:
            wider = [*widths[:stage], widths[stage] + STEP, *widths[stage + 1 :]]
            if off(tuple(wider)) > math.log(1 + tolerance):
                break
            widths = wider

    def best() -> Widths:
        return min(known, key=lambda widths: (abs(known[widths]), widths))

    if abs(off(best())) > math.log(1 + tolerance):  # one stage narrower and another wider
        middle_widths = best()
        for steps in product((-STEP, 0, STEP), repeat=len(usual)):
            tried = tuple(w + step for w, step in zip(middle_widths, steps, strict=True))
            if min(tried) >= STEP and abs(off(tried)) <= math.log(1 + tolerance):
                break
    return best()


@dataclass
class _Measured:
    """A network and its quickest training step or forward pass, in seconds."""

    network: nn.Module
    settings: Settings
    device: torch.device
    images: torch.Tensor
    trains: bool
    best: float = field(default=math.inf, init=False)

    def __post_init__(self) -> None:
        self.network.to(self.device).to(memory_format=torch.channels_last)
        self.network.train(self.trains)
        self._optimizer = create_optimizer(self.network, self.settings.recipe, 1e-9)
        self._labels = torch.zeros(len(self.images), dtype=torch.long, device=self.device)

    def measure(self) -> None:
        """Take one step or pass."""
        wait = getattr(torch, self.device.type).synchronize if self.device.type != "cpu" else None
        if wait:
            wait()
        begun = time.perf_counter()
        with mixed_precision(self.device, self.settings.recipe.precision):
            with torch.set_grad_enabled(self.trains):
                logits = self.network(self.images)
        if self.trains:
            self._optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(logits.float(), self._labels).backward()
            self._optimizer.step()
        if wait:
            wait()
        self.best = min(self.best, time.perf_counter() - begun)


def find(request: WidthRequest) -> Widths:
    """The widths of the timm model `request["name"]`; torch's threads are set for the process.

    Raises `SettingsError` for a model whose width cannot be chosen or that does not fit.
    """
    settings = settings_from_dict(request["settings"])
    device = resolve(request["device"])
    torch.set_num_threads(request["threads"])
    torch.manual_seed(0)
    classes, channels, size = (
        request["num_classes"],
        request["in_channels"],
        request["image_size"],
    )
    shape = settings.network.reference
    plain = build_network(
        BLOCKS["plain"],
        filters=shape.filters,
        repeats=shape.repeats,
        num_classes=classes,
        in_channels=channels,
        skeleton=shape.skeleton,
        connections=shape.connections,
    )

    def model(widths: Widths) -> nn.Module:
        name = with_widths(request["name"], widths)
        images = {"num_classes": classes, "in_channels": channels, "image_size": size}
        return build_comparator(name, **images)

    match = request["match"]
    if match in ("macs", "parameters"):

        def counted(network: nn.Module) -> float:
            if match == "macs":
                return count_macs(network, channels, size)
            return sum(weight.numel() for weight in network.parameters())

        target = counted(plain)
        return fitting_widths(
            lambda widths: counted(model(widths)) / target, usual_widths(request["name"])
        )
    trains = match == "seconds"
    count = settings.recipe.batch if trains else settings.latency.batch
    images = torch.randn(count, channels, size, size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)

    def ratio(widths: Widths) -> float:
        pair = [
            _Measured(network, settings, device, images, trains)
            for network in (model(widths), plain)
        ]
        for _ in range(PAIRS if trains else 10 * PAIRS):
            for each in pair:
                each.measure()
        return pair[0].best / pair[1].best

    return fitting_widths(ratio, usual_widths(request["name"]))


def main() -> None:
    """Answer the request on standard input; what a user can mend is one sentence."""
    try:
        json.dump(find(json.load(sys.stdin)), sys.stdout)
    except UserError as error:
        json.dump({"error": str(error)}, sys.stdout)


if __name__ == "__main__":
    main()
