"""The training of one candidate: its latency, its restarts, its outcome."""

import time
from pathlib import Path
from typing import NamedTuple

import torch

from blockqnn.data import Dataset, MemoryFeed
from blockqnn.network import network_of
from blockqnn.reward import latency_price
from blockqnn.search.candidate_files import identity
from blockqnn.search.outcome import OUT_OF_MEMORY, Kind, Outcome
from blockqnn.seeds import seed_for
from blockqnn.settings import Settings
from blockqnn.space import Block
from blockqnn.surrogate import CertainlyBad, StoppingRule
from blockqnn.training.checkpoint import Checkpoint
from blockqnn.training.devices import out_of_memory
from blockqnn.training.speed import measure_speed
from blockqnn.training.trainer import NoBetterThanChance, NotFinite, Trainer


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
) -> Outcome:
    """Train the network stacked from `block` and say what became of it.

    The checkpoint of a training in progress lies in `directory`, and a copy of it at the URL `copy`
    if given, from where another machine goes on. A first epoch no better than chance is begun again
    with a smaller learning rate, `recipe.restarts` times (CVPR 2018, section 4.2). A training that
    the `rule` finds certain to end badly is stopped; one whose measured latency is over the budget
    is not begun. Whatever the block does is an outcome. Raises OSError, for a full disk say, which
    is not the block's doing.
    """
    begun = time.perf_counter()
    named = identity(block, settings, data.fingerprint)
    checkpoint = Checkpoint(directory / "checkpoint", named, copy=copy)
    state = checkpoint.load(torch.device("cpu")) or {"restart": 0, "curve": []}
    first, spent = state["restart"], sum(entry["seconds"] for entry in state["curve"])
    # Measured once: another answer would throw away, or judge anew, what is trained in part.
    latency = state.get("latency")
    if settings.measures_latency and latency is None:
        latency = _latency(block, settings, data, device)
        if reason := _reason_against(latency, settings):
            spent += time.perf_counter() - begun
            return Outcome(kind="infeasible", reason=reason, seconds=spent, latency=latency)
    if latency is not None:
        checkpoint.facts = {"latency": latency}
        rule = rule and rule.costing(latency_price(latency, settings.reward.latency))
    for restart in range(first, settings.recipe.restarts + 1):
        end = _train_once(block, settings, data, device, checkpoint, rule, restart)
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


def _train_once(
    block: Block,
    settings: Settings,
    data: Dataset,
    device: torch.device,
    checkpoint: Checkpoint,
    rule: StoppingRule | None,
    restart: int,
) -> _End:
    """Train from fresh weights, or from the checkpoint; what the block does is no error here."""
    seed = seed_for(settings.seed, "training", block.key)
    own, weights = seed_for(seed, "restart", restart), seed_for(seed, "weights", restart)
    try:
        trainer = Trainer(
            network=network_of(settings.network, block, data, settings.recipe, weights),
            recipe=settings.recipe,
            feed=MemoryFeed(data, settings.recipe, own, device),
            seed=own,
            device=device,
            checkpoint=checkpoint,
            restart=restart,
            metric=settings.reward.metric,
            chance=data.constant_guess(settings.reward.metric),
            patient=settings.reward.objective != "paper",
            judge=rule.judge if rule is not None else lambda curve: None,
        )
        return _End("trained", trainer.run())
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
    if latency is None:  # what is only recorded may be missing
        return f"{OUT_OF_MEMORY} in a pass of {batch:,} images" * settings.needs_latency
    if allowed is None or latency <= allowed:
        return ""
    return f"takes {latency:.6g} ms for a forward pass, budget.latency is {allowed:.6g} ms"


def _recorded(entry: dict[str, float]) -> dict[str, float]:
    """An entry of the curve without measurements that differ between two runs, but for seconds."""
    measured = ("images_per_second", "device_memory")
    return {name: value for name, value in entry.items() if name not in measured}
