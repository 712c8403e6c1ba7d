"""The training of one candidate on one rung: its latency, its restarts, its outcome."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from blockqnn.data import Dataset, MemoryFeed
from blockqnn.network import network_of
from blockqnn.reward import latency_price
from blockqnn.search.candidate_files import WEIGHTS, identity
from blockqnn.search.outcome import OUT_OF_MEMORY, Kind, Outcome
from blockqnn.seeds import seed_for
from blockqnn.settings import Settings
from blockqnn.space import Block
from blockqnn.surrogate import CertainlyBad, StoppingRule
from blockqnn.training.checkpoint import Checkpoint
from blockqnn.training.devices import out_of_memory
from blockqnn.training.speed import measure_speed
from blockqnn.training.trainer import NoBetterThanChance, NotFinite, Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Further:
    """What a candidate on a further rung goes on from."""

    rung: int
    """The rung that it is trained on now, from 1."""
    directory: Path
    """Directory of its candidate on the rung before, where its weights are."""
    copy: str | None = None
    """URL of these weights, for a machine that does not see that directory."""


class _End(NamedTuple):
    """What one start of a training came to, and whether to begin `again`."""

    kind: Kind
    curve: list[dict[str, float]]
    reason: str = ""
    predicted: float | None = None
    again: bool = False


def train_candidate(
    block: Block,
    settings: Settings,
    data: Dataset,
    directory: Path,
    device: torch.device,
    *,
    copy: str | None = None,
    rule: StoppingRule | None = None,
    further: Further | None = None,
) -> Outcome:
    """Train the network stacked from `block` and say what became of it.

    The checkpoint of a training in progress lies in `directory`, and a copy of it at the URL `copy`
    if given, from where another machine goes on. A first epoch no better than chance is begun again
    with a smaller learning rate, `recipe.restarts` times (CVPR 2018, section 4.2). A training that
    the `rule` finds certain to end badly is stopped; one whose measured latency is over the budget
    is not begun. On a `further` rung it goes on from the weights of the one before; weights from
    which a later rung goes on are left in `directory`, and at the URL beside `copy`. Whatever the
    block does is an outcome. Raises OSError, for a full disk say, which is not the block's doing.
    """
    begun = time.perf_counter()
    rung = further.rung if further is not None else 0
    named = identity(block, settings, data.fingerprint, rung)
    checkpoint = Checkpoint(directory / "checkpoint", named, copy=copy)
    state = checkpoint.load(torch.device("cpu")) or {"restart": 0, "curve": []}
    first, spent = state["restart"], sum(entry["seconds"] for entry in state["curve"])
    weights: Mapping[str, Any] | None = None
    if further is not None:
        weights = _weights(block, settings, data, directory, device, further)
        if weights is None:  # on a GPU no training is like another
            return Outcome(kind="diverged", reason="its weights are gone, and do not come again")
        first = max(first, weights["restart"])
    last = rung == len(settings.rungs)
    settings = replace(settings, recipe=settings.recipe_of(rung), rungs=())
    if not last:
        beside = None if copy is None else f"{copy.rpartition('/')[0]}/{WEIGHTS}"
        directory.mkdir(parents=True, exist_ok=True)
        end_weights = Checkpoint(directory / WEIGHTS, named, copy=beside)
    else:
        end_weights = None
    data = data.cut(settings.recipe.images, seed_for(settings.seed, "rungs"))
    # Measured once: another answer would throw away, or judge anew, what is trained in part.
    latency = state.get("latency") or (weights or {}).get("latency")
    if settings.measures_latency and latency is None:
        latency = _latency(block, settings, data, device)
        if reason := _reason_against(latency, settings):
            spent += time.perf_counter() - begun
            return Outcome(kind="infeasible", reason=reason, seconds=spent, latency=latency)
    if latency is not None:
        checkpoint.facts = {"latency": latency}
        if end_weights is not None:
            end_weights.facts = checkpoint.facts
        if settings.judges_measured_latency:
            rule = rule and rule.costing(latency_price(latency, settings.reward.latency))
    job = _Job(block, settings, data, device, checkpoint, rule, rung, weights, end_weights)
    for restart in range(first, settings.recipe.restarts + 1):
        end = _train_once(job, restart)
        if not end.again:
            break
    return Outcome(
        kind=end.kind,
        accuracy=end.curve[-1]["accuracy"] if end.kind == "trained" else None,
        balanced_accuracy=end.curve[-1].get("balanced_accuracy") if end.kind == "trained" else None,
        curve=tuple(_recorded(entry) for entry in end.curve),
        restarts=restart,
        seconds=spent + time.perf_counter() - begun,
        reason=end.reason,
        predicted=end.predicted,
        latency=latency,
    )


class _Job(NamedTuple):
    """What is trained on one rung, with which settings and to what end."""

    block: Block
    settings: Settings
    data: Dataset
    device: torch.device
    checkpoint: Checkpoint
    rule: StoppingRule | None
    rung: int
    begin: Mapping[str, Any] | None
    """The state of the network's weights to begin with; None for fresh ones."""
    end: Checkpoint | None
    """Where the weights of a whole training are left, with what was measured before it."""


def _weights(
    block: Block,
    settings: Settings,
    data: Dataset,
    directory: Path,
    device: torch.device,
    further: Further,
) -> Mapping[str, Any] | None:
    """The weights of the rung before. If they are gone, that rung is trained again; None if it
    diverges this time.
    """
    before = further.rung - 1
    named = identity(block, settings, data.fingerprint, before)
    kept = Checkpoint(further.directory / WEIGHTS, named, copy=further.copy)
    state = kept.load(torch.device("cpu"))
    if state is None:
        log.warning("%s is not there: the rung before is trained again", kept.path)
        again = directory / "before"
        lower = Further(before, again) if before else None
        train_candidate(block, settings, data, again, device, further=lower)
        state = Checkpoint(again / WEIGHTS, named).load(torch.device("cpu"))
    return state


def _train_once(job: _Job, restart: int) -> _End:
    """Train to the end of a rung, from its checkpoint if there is one; what the block does is no
    error here.
    """
    block, settings, data, device, checkpoint, rule, rung, begin, left = job
    seed = seed_for(settings.seed, "training", block.key)
    own, weights = seed_for(seed, "restart", restart), seed_for(seed, "weights", restart)
    if rung:
        own = seed_for(own, "rung", rung)
    chance = data.constant_guess(settings.reward.metric) if begin is None else None
    try:
        network = network_of(settings.network, block, data, settings.recipe, weights)
        if begin is not None:
            network.load_state_dict(begin["network"])
        trainer = Trainer(
            network=network,
            recipe=settings.recipe,
            feed=MemoryFeed(data, settings.recipe, own, device),
            seed=own,
            device=device,
            checkpoint=checkpoint,
            restart=restart,
            metric=settings.reward.metric,
            chance=chance,
            patient=settings.reward.objective != "paper",
            judge=rule.judge if rule is not None else lambda curve: None,
        )
        end = _End("trained", trainer.run())
        if left is not None:
            left.save({"network": trainer.kept.state_dict(), "restart": restart})
        return end
    except CertainlyBad as error:
        return _End("stopped", trainer.curve, str(error), error.predicted)
    except NoBetterThanChance as error:
        return _End("diverged", error.curve, str(error), again=True)
    except NotFinite as error:
        # After a fine first epoch a smaller rate is not what the paper restarts for.
        return _End("diverged", error.curve, str(error), again=not error.curve)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return _End("infeasible", [], OUT_OF_MEMORY)


def _latency(block: Block, settings: Settings, data: Dataset, device: torch.device) -> float | None:
    """Milliseconds of a forward pass, None where it does not fit into memory."""
    (row,) = measure_speed(
        network_of(settings.network, block, data, settings.recipe, seed=0),
        batches=(settings.latency.batch,),
        in_channels=data.in_channels,
        image_size=data.image_size,
        device=device,
        precision=settings.recipe.precision,
        repeats=settings.latency.passes,
    )
    milliseconds: float | None = row["milliseconds"]
    return milliseconds


def _reason_against(latency: float | None, settings: Settings) -> str:
    allowed, batch = settings.budget.latency, settings.latency.batch
    if not settings.judges_measured_latency:  # what is only recorded may be missing
        return ""
    if latency is None:
        return f"{OUT_OF_MEMORY} in a pass of {batch:,} images"
    if allowed is None or latency <= allowed:
        return ""
    return f"takes {latency:.6g} ms for a forward pass, budget.latency is {allowed:.6g} ms"


def _recorded(entry: dict[str, float]) -> dict[str, float]:
    """An entry of the curve without measurements that differ between two runs, but for seconds."""
    measured = ("images_per_second", "cores", "memory", "device_memory")
    return {name: value for name, value in entry.items() if name not in measured}
