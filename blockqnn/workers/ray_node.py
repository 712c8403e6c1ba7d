"""A candidate trained by a Ray task, on any node of a cluster, with no Prefect and no MLflow."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import torch

from blockqnn.data import Dataset, load
from blockqnn.params import settings_from_dict
from blockqnn.search.candidate import train_candidate
from blockqnn.search.candidate_files import WEIGHTS, candidate_url
from blockqnn.search.outcome import Outcome
from blockqnn.settings import Settings
from blockqnn.storage.urls import is_url
from blockqnn.training.devices import limit_memory, resolve
from blockqnn.workers.attempt import answer, read_task, train_and_keep
from blockqnn.workers.protocol import Answer, CandidateTask, NodeBegin

_here: dict[str, Dataset] = {}
"""The data set on the device, kept by a process that trains one candidate after the other."""


def train_on_node(
    begin: NodeBegin, task: CandidateTask, images: Mapping[str, Any] | None
) -> Iterator[Answer]:
    """Train a candidate on the GPU that Ray chose for it, or on the CPU if it chose none.

    Says that it has begun, then what came of it. `images` are those of the search
    (`Dataset.to_arrays`); None reads them from this node's disk.
    """
    yield {"begun": True}
    here = ray.get_runtime_context()
    assigned = here.get_accelerator_ids().get("GPU", [])
    settings = settings_from_dict(begin["settings"])
    number, place = task["number"], begin["place"]
    torch.set_num_threads(begin["threads"])

    def train() -> Outcome:
        device = resolve(_device(str(assigned[0])) if assigned else "cpu")
        limit_memory(device, 1 if task["alone"] else begin["share"])
        data = _data(settings, images, device)
        if not is_url(place):
            return train_and_keep(task, settings, data, Path(place), device)
        # the last checkpoint stays there until the outcome is in the journal
        with tempfile.TemporaryDirectory(prefix="blockqnn-") as scratch:
            block, own, further, rule = read_task(task, settings, Path(scratch))
            if further is not None and (of := task["of"]) is not None:
                further = replace(further, copy=f"{candidate_url(place, of)}/{WEIGHTS}")
            job, copy = (block, own, data, Path(scratch)), candidate_url(place, number)
            copy = f"{copy}/checkpoint"
            return train_candidate(*job, device, copy=copy, rule=rule, further=further)

    try:
        yield {**answer(train), "node": here.get_node_id()}
    finally:
        if assigned:
            torch.cuda.empty_cache()  # a neighbour on the same GPU may need it


def _data(settings: Settings, images: Mapping[str, Any] | None, device: torch.device) -> Dataset:
    name = images["fingerprint"] if images else repr((settings.data, settings.seed))
    key = f"{device} {name}"
    if key not in _here:
        _here.clear()
        data = Dataset.from_arrays(images) if images else load(settings.data, settings.seed)
        _here[key] = data.to(device)
    return _here[key]


def _device(assigned: str) -> str:
    """Torch's name of a GPU that Ray names as the node's CUDA_VISIBLE_DEVICES did."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return f"cuda:{names.index(assigned) if assigned in names else int(assigned)}"
