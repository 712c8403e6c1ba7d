"""Networks of one cost among final trainings: filters of blocks' networks, widths of timm's models.

What was measured for it is kept in the run's directory, so that the same plan trains the same
networks whenever it is begun again.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from blockqnn.cost.match import Matched
from blockqnn.data.images import ImageFacts
from blockqnn.errors import SearchError
from blockqnn.settings import NetworkSettings, Plan, Recipe, Settings
from blockqnn.settings.network import MEASURED
from blockqnn.space import Block, Shape, design_of
from blockqnn.storage import as_json, read_json, write_json
from blockqnn.training.device_prices import Request, WidthRequest, matched_widths
from blockqnn.training.devices import usable_cores
from blockqnn.zoo import BLOCKS

FILE = "matched.json"
"""File in a run's directory of the widths of networks."""


def matched_network(
    run: Path, plan: Plan, block: Block, shape: Shape, images: ImageFacts
) -> tuple[NetworkSettings, Matched | None]:
    """The plan's network in that shape, with filters by which the block costs what block plain
    does; and how it was matched, None if it was not.

    Raises `SearchError` for a device that cannot be measured, and OSError.
    """
    network = plan.network
    if network.match == "none":
        return network.shaped(shape), None
    if network.match in MEASURED:
        return _measured_network(run, plan, block, shape, images)
    given: dict[str, Any] = {
        "num_classes": len(images.classes),
        "in_channels": images.in_channels,
        "image_size": images.image_size,
    }
    like = BLOCKS["plain"]
    found = network.matched(block, like, shape=shape, **given)
    ratio = network.times_reference(found, block, like, **given)
    return found, {"by": network.match, "ratio": round(ratio, 4)}


def _measured_network(
    run: Path, plan: Plan, block: Block, shape: Shape, images: ImageFacts
) -> tuple[NetworkSettings, Matched]:
    """The same by what is measured."""
    network, design = plan.network, str(design_of(block, shape))
    known = _known(run, plan, images)
    found = known.get("blocks", {})
    if design not in found:
        repeats = list(network.match_repeats)
        own = {"block": str(block), "shape": shape.to_dict(), "match_repeats": repeats}
        found = {**found, design: _fitted(plan, images, **own)}
        _keep(run, {**known, "blocks": found})
    own = found[design]
    fitted = replace(
        network.shaped(shape),
        filters=tuple(own["widths"]),
        repeats=own["repeats"] if isinstance(own["repeats"], int) else tuple(own["repeats"]),
        match="none",
        match_repeats=(),
    )
    return fitted, {"by": network.match, "ratio": round(float(own["ratio"]), 4)}


def matched_comparator(
    run: Path, plan: Plan, name: str, images: ImageFacts
) -> tuple[str, Matched | None]:
    """The name of the timm model with widths by which it costs what block plain's network does; and
    how it was matched, None if it was not.

    A name that has widths already stays. Raises `SettingsError` for a model whose width cannot be
    chosen, `SearchError` for a device that cannot be measured, and OSError.
    """
    match = plan.network.match
    if match == "none" or ":" in name:
        return name, None
    known = _known(run, plan, images)
    found = known.get("timm", {})
    if name not in found:
        fitted = _fitted(plan, images, name=name)
        widths = "-".join(map(str, fitted["widths"]))
        own = {"name": f"{name}:{widths}", "ratio": round(float(fitted["ratio"]), 4)}
        found = {**found, name: own}
        _keep(run, {**known, "timm": found})
    return str(found[name]["name"]), {"by": match, "ratio": float(found[name]["ratio"])}


def _fitted(plan: Plan, images: ImageFacts, **subject: Any) -> dict[str, Any]:
    """What `matched_widths` finds out of a block or a timm model."""
    request = {**_request(plan, images), "match": plan.network.match, **subject}
    return matched_widths(cast(WidthRequest, request))


def _request(plan: Plan, images: ImageFacts) -> Request:
    """What is to be measured: the plan's networks in the steps of its recipe on one device."""
    workers, recipe = plan.workers, plan.recipe
    own = {name: getattr(recipe, name) for name in ("optimizer", "momentum", "precision")}
    batch = max(2, recipe.batch // (workers.processes * recipe.accumulate))
    network, recipe = replace(plan.network, match_repeats=()), Recipe(epochs=1, batch=batch, **own)
    settings = Settings(network=network, recipe=recipe)
    together = (workers.parallel or 1) * workers.processes
    return {
        "settings": settings.to_dict(),
        "device": (*workers.devices, "auto")[0],
        "threads": workers.threads or max(1, usable_cores() // together),
        "num_classes": len(images.classes),
        "in_channels": images.in_channels,
        "image_size": images.image_size,
    }


def _known(run: Path, plan: Plan, images: ImageFacts) -> dict[str, Any]:
    """What was measured in this run for such networks and images, on whatever workers it had then:
    these may change, and the trainings go on.
    """
    recipe = {name: getattr(plan.recipe, name) for name in ("batch", "optimizer", "precision")}
    facts = (len(images.classes), images.in_channels, images.image_size)
    of = as_json(
        {"version": 2, "network": plan.network.described(), "recipe": recipe, "images": facts}
    )
    try:
        known: dict[str, Any] = read_json(run / FILE)
        return known if known["of"] == of else {"of": of}
    except FileNotFoundError:
        return {"of": of}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SearchError(f"{run / FILE} is damaged ({error}): delete it and go on") from None


def _keep(run: Path, known: dict[str, Any]) -> None:
    run.mkdir(parents=True, exist_ok=True)
    write_json(known, run / FILE)
