"""What final trainings take: each of their networks trains for some seconds on the real images."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import fmean
from typing import cast

from blockqnn.data.images import ImageFacts, open_images
from blockqnn.errors import SearchError, SettingsError
from blockqnn.estimate.needs import FLOW, JUDGING, Needs
from blockqnn.estimate.some_steps import Steps, StepsRequest, part_of_batch
from blockqnn.settings import Plan
from blockqnn.space import AS_SET, Block, Shape
from blockqnn.training.device_prices import last_words, run_measurement
from blockqnn.training.devices import usable_cores, visible_devices
from blockqnn.workers.training_processes import TrainingProcesses
from blockqnn.zoo import BLOCKS, named_design

START = 12.0
"""Seconds until the flow and its server are there."""

OVERHEAD = 8.0
"""Seconds of a training beside its steps: its process starts, and reads its images."""

FILES = 250_000
"""Bytes that a training on all images leaves beside weights, mostly the model in MLflow."""

STATE = 16
"""Bytes of a checkpoint for each parameter: the weight, two moments, and an average."""


@dataclass(frozen=True)
class _Network:
    """One of the networks of a plan, and how often it is trained on which images."""

    block: Block | None
    shape: Shape
    timm: str | None
    trainings: int
    everything: bool


def estimate_plan(plan: Plan, best: Sequence[tuple[Block, Shape]] = ()) -> Needs:
    """What the final trainings of a plan take, from beginning to end, found out in some seconds a
    network; compiled networks are taken to be as slow as others, which they are not.

    `best` are the best designs of the plan's search, as far as it is known; block plain stands for
    those that are not. Networks of equal cost are all taken to be as block plain's. Raises
    `SettingsError` for what cannot be trained, `SearchError` for a process that fails.
    """
    facts = open_images(plan.data, plan.seed).facts
    workers = TrainingProcesses(plan.workers)
    slots = workers.slots
    networks = _networks(plan, best)
    found = _measured(plan, networks, slots)
    totals, memory = [], []
    for network, steps in zip(networks, found, strict=True):
        totals.append(_seconds(plan, facts, steps, network.everything))
        memory.append(steps["memory_fixed"] + steps["memory_each"] * part_of_batch(plan))
    trainings = sum(network.trainings for network in networks)
    work = sum(n.trainings * seconds for n, seconds in zip(networks, totals, strict=True))
    parameters = [steps["parameters"] for steps in found]
    weights = sum(n.trainings * count for n, count in zip(networks, parameters, strict=True))
    models = sum(network.trainings for network in networks if network.everything)
    gpus = [taken for steps in found if (taken := steps["device_memory"]) is not None]
    # no training is divided: the last ones may leave slots idle
    seconds = max(work / slots, max(totals))
    return Needs(
        trainings=trainings,
        at_a_time=slots,
        each=work / trainings,
        seconds=seconds + START,
        memory=FLOW + round(slots * plan.workers.processes * max(memory)),
        device_memory=max(gpus, default=None),
        # the last and the best epoch's weights, the model in MLflow, checkpoints meanwhile
        disk=12 * weights + FILES * models + 2 * STATE * slots * max(parameters),
    )


def _networks(plan: Plan, best: Sequence[tuple[Block, Shape]]) -> list[_Network]:
    """The networks of a plan; where all cost the same, block plain's for each."""
    found: list[_Network] = []
    equal = plan.network.match != "none"

    def add(
        block: Block | None, shape: Shape, timm: str | None, trainings: int, all_: bool
    ) -> None:
        if equal:
            block, shape, timm = BLOCKS["plain"], AS_SET, None
        found.append(_Network(block, shape, timm, trainings, all_))

    ranked = [*best[: plan.top], *[(BLOCKS["plain"], AS_SET)] * (plan.top - len(best))]
    for block, shape in ranked:
        add(block, shape, None, plan.selection_seeds, False)
    for block, shape in ranked[:1]:
        add(block, shape, None, plan.seeds, True)
    for text in plan.blocks:
        _, block, shape = named_design(text)
        add(block, shape, None, plan.seeds, True)
    for name in plan.compare:
        add(None, AS_SET, name, plan.seeds, True)
    return found


def _measured(plan: Plan, networks: Sequence[_Network], slots: int) -> list[Steps]:
    """Steps of each network, `slots` at a time as in the trainings; the same network once."""
    own = {(n.block, n.shape, n.timm): n for n in networks}
    busy = list(islice(cycle(own), -(-len(own) // slots) * slots))  # every slot has work to the end
    with ThreadPoolExecutor(slots) as threads:
        found = list(threads.map(lambda key: _steps(plan, own[key], slots), busy))
    by_network: dict[object, list[Steps]] = {}
    for key, steps in zip(busy, found, strict=True):
        by_network.setdefault(key, []).append(steps)
    return [_mean(by_network[network.block, network.shape, network.timm]) for network in networks]


def _mean(several: Sequence[Steps]) -> Steps:
    first = several[0]
    first["seconds_fixed"] = fmean(steps["seconds_fixed"] for steps in several)
    first["seconds_each"] = fmean(steps["seconds_each"] for steps in several)
    return first


def _steps(plan: Plan, network: _Network, slots: int) -> Steps:
    """What `blockqnn.estimate.some_steps` finds out about one network."""
    device = (*plan.workers.devices, *visible_devices())[0]
    processes = slots * plan.workers.processes
    threads = plan.workers.threads or max(1, usable_cores() // processes)
    request: StepsRequest = {
        "plan": plan.to_dict(),
        "block": None if network.block is None else str(network.block),
        "shape": network.shape.to_dict(),
        "timm": network.timm,
        "device": device,
        "threads": threads,
    }
    done = run_measurement(["blockqnn.estimate.some_steps"], request)
    if done.returncode:
        raise SearchError(
            f"{network.timm or network.block} could not be trained for some steps "
            f"({last_words(done)}): its training would fail too, of memory perhaps"
        )
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise SettingsError(answer["error"])
    return cast(Steps, answer)


def _seconds(plan: Plan, facts: ImageFacts, steps: Steps, everything: bool) -> float:
    """Seconds of one training; several processes share its batches."""
    recipe, held_out = plan.recipe, 0 if everything else facts.held_out_images
    images = facts.train_images + (facts.held_out_images if everything else 0)
    updates = -(-images // recipe.batch)
    share = images / plan.workers.processes
    epoch = updates * steps["seconds_fixed"] + share * steps["seconds_each"]
    return OVERHEAD + recipe.epochs * (epoch + JUDGING * held_out * steps["seconds_each"])
