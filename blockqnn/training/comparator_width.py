"""How wide a timm model has to be, as `python -m blockqnn.training.comparator_width`.

It reads a `WidthRequest` as JSON from standard input and writes the `widths`, and the `ratio` of
what the model then costs to what block plain's network does, to standard output.
Multiply-accumulates and parameters are counted. Seconds and latency are measured, in turn with
block plain's network, so that a busy neighbour slows both.
"""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import torch
from torch import nn

from blockqnn.cost.match import STEP, TOLERANCE, WIDEST
from blockqnn.errors import UserError
from blockqnn.network.timm_networks import build_comparator, count_macs, usual_widths, with_widths
from blockqnn.params import settings_from_dict
from blockqnn.settings.network import MEASURED
from blockqnn.training.calibration import Meter, Subject
from blockqnn.training.device_prices import WidthRequest
from blockqnn.training.devices import resolve
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


def find(request: WidthRequest) -> tuple[Widths, float]:
    """The widths of the timm model `request["name"]`, and its cost with them beside that of block
    plain's network; torch's threads are set for the process.

    Raises `SettingsError` for a model whose width cannot be chosen or that does not fit.
    """
    settings = settings_from_dict(request["settings"])
    settings = replace(settings, network=settings.network.reference)
    device = resolve(request["device"])
    torch.set_num_threads(request["threads"])
    torch.manual_seed(0)
    channels, size = request["in_channels"], request["image_size"]
    images = {
        "num_classes": request["num_classes"],
        "in_channels": channels,
        "image_size": size,
    }
    meter, match = Meter(device, settings, size), request["match"]
    plain = meter.network(settings.network, BLOCKS["plain"], images)

    def model(widths: Widths) -> nn.Module:
        return build_comparator(with_widths(request["name"], widths), **images)

    def counted(network: nn.Module) -> float:
        if match == "macs":
            return count_macs(network.cpu(), channels, size)
        return sum(weight.numel() for weight in network.parameters())

    def taken(subject: Subject) -> float:
        if match == "latency":
            return subject.forward
        return subject.step / meter.batch + subject.update / settings.recipe.batch

    def ratio(widths: Widths) -> float:
        if match in MEASURED:
            pair = [meter.subject(model(widths), ((channels, size),), gradient=False), plain]
            for _ in range(PAIRS):
                for subject in pair:
                    meter.measure(subject)
            return taken(pair[0]) / taken(pair[1])
        return counted(model(widths)) / counted(plain.module)

    ratios: dict[Widths, float] = {}

    def known(widths: Widths) -> float:
        return ratios.setdefault(widths, ratio(widths))

    found = fitting_widths(known, usual_widths(request["name"]))
    return found, ratios[found]


def main() -> None:
    """Answer the request on standard input; what a user can mend is one sentence."""
    try:
        widths, ratio = find(json.load(sys.stdin))
        json.dump({"widths": widths, "ratio": ratio}, sys.stdout)
    except UserError as error:
        json.dump({"error": str(error)}, sys.stdout)


if __name__ == "__main__":
    main()
