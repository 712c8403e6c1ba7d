"""How wide a network has to be, as `python -m blockqnn.training.network_width`.

It reads a `WidthRequest` as JSON from standard input and writes the `widths`, for a block its
`repeats` too, and the `ratio` of what the network then costs to what block plain's does, to
standard output. Multiply-accumulates and parameters are counted. Seconds and latency are measured,
in turn with block plain's network, so that a busy neighbour slows both.
"""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import nn

from blockqnn.cost.match import STEP, TOLERANCE, WIDEST, preference
from blockqnn.errors import UserError
from blockqnn.network.timm_networks import build_comparator, count_macs, usual_widths, with_widths
from blockqnn.params import settings_from_dict
from blockqnn.settings import NetworkSettings
from blockqnn.space import LONGEST, Block, Shape
from blockqnn.training.calibration import Meter, Subject
from blockqnn.training.device_prices import WidthRequest
from blockqnn.training.devices import resolve
from blockqnn.zoo import BLOCKS

PAIRS = 8
"""Measurements of each of two networks, in turn; the quickest counts."""

Widths = tuple[int, ...]
Repeats = int | tuple[int, ...]


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

    def best() -> Widths:
        return min(known, key=lambda widths: (abs(known[widths]), widths))

    widths = list(scaled(STEP))
    for stage in reversed(range(len(widths))):  # none is too narrow yet: out of proportion then
        while widths[stage] > STEP and off(tuple(widths)) > math.log(1 + tolerance):
            widths[stage] -= STEP
    while widths[-1] < scaled(STEP)[-1] and off(tuple(widths)) < -math.log(1 + tolerance):
        widths[-1] += STEP
    if off(tuple(widths)) > 0 or widths != list(scaled(STEP)):
        return best()
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

    if abs(off(best())) > math.log(1 + tolerance):  # one stage narrower and another wider
        middle_widths = best()
        for steps in product((-STEP, 0, STEP), repeat=len(usual)):
            tried = tuple(w + step for w, step in zip(middle_widths, steps, strict=True))
            if min(tried) >= STEP and abs(off(tried)) <= math.log(1 + tolerance):
                break
    return best()


class Beside:
    """Measures networks beside that of block plain; torch's threads are set for the process."""

    def __init__(self, request: WidthRequest) -> None:
        settings = settings_from_dict(request["settings"])
        self.settings = settings
        match: Any = request["match"]
        repeats = tuple(request.get("match_repeats", ()))
        self.network = replace(settings.network, match=match, match_repeats=repeats)
        self.images = {
            "num_classes": request["num_classes"],
            "in_channels": request["in_channels"],
            "image_size": request["image_size"],
        }
        torch.set_num_threads(request["threads"])
        torch.manual_seed(0)
        self.meter = Meter(resolve(request["device"]), settings, request["image_size"])
        reference = self.network.reference
        self.plain = self.meter.network(reference, BLOCKS["plain"], self.images)

    def ratio(self, network: nn.Module) -> float:
        """What a network costs beside that of block plain."""
        match, meter = self.network.match, self.meter
        channels, size = self.images["in_channels"], self.images["image_size"]
        if match == "macs":
            network, plain = network.cpu(), self.plain.module.cpu()
            return count_macs(network, channels, size) / count_macs(plain, channels, size)
        if match == "parameters":
            return _parameters(network) / _parameters(self.plain.module)
        pair = [meter.subject(network, ((channels, size),), gradient=False), self.plain]
        for _ in range(PAIRS):
            for subject in pair:
                meter.measure(subject)
        return self._taken(pair[0]) / self._taken(pair[1])

    def _taken(self, subject: Subject) -> float:
        if self.network.match == "latency":
            return subject.forward
        step, recipe = subject.step / self.meter.batch, self.settings.recipe
        return step + subject.update / recipe.batch


def _parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def of_model(beside: Beside, name: str) -> tuple[Widths, float]:
    """The widths of a timm model, and its cost with them beside that of block plain's network.

    Raises `SettingsError` for a model whose width cannot be chosen or that does not fit.
    """

    def model(widths: Widths) -> nn.Module:
        return build_comparator(with_widths(name, widths), **beside.images)

    return _fitted(beside, model, usual_widths(name))


def of_block(beside: Beside, block: Block, shape: Shape) -> tuple[Widths, Repeats, float]:
    """The filters and the blocks of a stage of a block's network, and its cost with them beside
    that of block plain's: of several numbers of blocks the one whose filters are nearest to the
    settings'.
    """
    shaped = replace(beside.network.shaped(shape), match="none", match_repeats=())
    reference = beside.network.reference.layers(BLOCKS["plain"], **beside.images)
    if list(shaped.layers(block, **beside.images)) == list(reference):
        return shaped.filters, shaped.repeats, 1.0  # whatever noise would say
    offered = beside.network.match_repeats if shape.repeats is None else ()
    found: list[tuple[Widths, Repeats, float]] = []
    for repeats in offered or (shaped.repeats,):
        own = replace(shaped, repeats=repeats)

        def network(widths: Widths, own: NetworkSettings = own) -> nn.Module:
            wide = replace(own, filters=widths)
            return beside.meter.network(wide, block, beside.images).module

        widths, ratio = _fitted(beside, network, shaped.filters)
        found.append((widths, repeats, ratio))

    return min(found, key=lambda each: preference(each[0], each[2], shaped.filters))


def _fitted(
    beside: Beside, build: Callable[[Widths], nn.Module], usual: Widths
) -> tuple[Widths, float]:
    """The fitting widths of a network, and its cost with them beside block plain's."""
    ratios: dict[Widths, float] = {}

    def ratio(widths: Widths) -> float:
        if widths not in ratios:
            ratios[widths] = beside.ratio(build(widths))
        return ratios[widths]

    found = fitting_widths(ratio, usual)
    return found, ratios[found]


def find(request: WidthRequest) -> dict[str, Any]:
    """The answer to a request; raises `SettingsError` for what a user can mend."""
    beside = Beside(request)
    if "name" in request:
        widths, ratio = of_model(beside, request["name"])
        return {"widths": widths, "ratio": ratio}
    block, shape = Block.parse(request["block"], LONGEST), Shape.from_dict(request["shape"])
    widths, repeats, ratio = of_block(beside, block, shape)
    return {"widths": widths, "repeats": repeats, "ratio": ratio}


def main() -> None:
    """Answer the request on standard input; what a user can mend is one sentence."""
    try:
        json.dump(find(json.load(sys.stdin)), sys.stdout)
    except UserError as error:
        json.dump({"error": str(error)}, sys.stdout)


if __name__ == "__main__":
    main()
