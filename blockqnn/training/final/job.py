"""What a final training trains, as job.json says it, and everything that follows from that."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from torch import nn

from blockqnn.cost.match import Matched
from blockqnn.data.images import ImageFacts, open_images
from blockqnn.errors import SearchError, SettingsError
from blockqnn.network.timm_networks import build_comparator
from blockqnn.params import plan_from_dict
from blockqnn.settings import DataSettings, Plan, Recipe
from blockqnn.space import AS_SET, Block, Shape
from blockqnn.storage import as_json, read_json, write_json
from blockqnn.training.final.matched import matched_comparator, matched_network

VERSION = 1
"""Format of job.json; another one is refused."""

Split = Literal["train", "everything"]
"""Images to train on: those not held out, or all."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One final training: of a block's network or of a timm model, on a split, with a seed.

    job.json has the same fields as plain values.
    """

    label: str
    """Name of the network in tables."""
    block: str | None
    """Code of the block; None for a timm model."""
    timm: str | None
    """Name of the timm model; None for a block."""
    split: Split
    seed: int
    data: str
    """The plan's label, which names data sets for people."""
    plan: Plan
    identity: str
    """Hash of everything that the result depends on."""
    matched: Matched | None = None
    """What it costs alike with block plain's network, None if it was not made to."""

    @property
    def subject(self) -> str:
        """The block's code or the model's name."""
        return self.block or self.timm or ""


def prepare_job(
    run: Path,
    *,
    label: str,
    split: Split,
    seed: int,
    data: str,
    plan: Plan,
    block: Block | None = None,
    shape: Shape = AS_SET,
    timm: str | None = None,
    write: bool = True,
) -> Path:
    """Write a training's job.json under `run` unless it has a result, and return its directory;
    without `write` only check it and name the directory.

    The directory's name holds the identity of all that the result depends on, so that a changed
    setting or other images mean another training. `shape` is what a block's network has of its own
    beside the plan's. The filters of a block's network and the widths
    of a timm model are those that `network.match` asks for. What else the plan says (where the
    images lie, loaders, checkpoints) may change until the training has ended. Raises
    `SettingsError` for data that is not to be had and a timm model that does not fit it,
    `SearchError` for a device that cannot be measured, and OSError.
    """
    job = Job(
        label=label,
        block=str(block) if block is not None else None,
        timm=timm,
        split=split,
        seed=seed,
        data=data,
        plan=plan,
        identity="",
    )
    images = _image_facts(plan.data, plan.seed)
    if block is not None:
        network, matched = matched_network(run, plan, block, shape, images)
        job = replace(job, plan=replace(plan, network=network), matched=matched)
    elif timm is not None:
        timm, matched = matched_comparator(run, plan, timm, images)
        job = replace(job, timm=timm, matched=matched)
    job = replace(job, identity=identity_of(job, images.fingerprint))
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", label).strip("-.")[:40] or "network"
    directory = run / "trainings" / f"{name}-{split}-{seed}-{job.identity[:8]}"
    if (directory / "result.json").exists():
        return directory
    if timm is not None:
        _check_comparator(timm, images, plan.recipe)
    if not write:
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    path, content = directory / "job.json", {"version": VERSION, **asdict(job)}
    if not (path.exists() and path.read_bytes() == as_json(content).encode()):
        write_json(content, path)
    return directory


def read_job(directory: Path) -> Job:
    """The job in a training's directory; raises `SearchError` when there is none to be read."""
    path = directory / "job.json"
    try:
        content = dict(read_json(path))
        if content.pop("version") != VERSION:
            raise SearchError(f"{path} was written by another version of blockqnn: use that one")
        plan = plan_from_dict(content.pop("plan"))
        return Job(plan=plan, **content)
    except OSError as error:
        raise SearchError(f"there is no training in {directory} ({error.strerror})") from None
    except SettingsError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise SearchError(f"{path} is damaged ({error}): delete {directory} and go on") from None


def identity_of(job: Job, fingerprint: str) -> str:
    """A hash of everything that the result depends on, the fingerprint of the images included."""
    plan = job.plan
    network = plan.network.described() if job.block is not None else None
    subject = (job.block, job.timm, job.split, job.seed, network)
    parts = (*subject, plan.recipe.described(), plan.data.image_size, fingerprint)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def comparator(name: str, images: ImageFacts, recipe: Recipe) -> nn.Module:
    """The timm model that fits the images, freshly initialised, or `SettingsError`."""
    return build_comparator(
        name,
        num_classes=len(images.classes),
        in_channels=images.in_channels,
        image_size=images.image_size,
        drop_path=recipe.drop_path,
        dropout=recipe.dropout,
    )


@cache
def _image_facts(data: DataSettings, seed: int) -> ImageFacts:
    return open_images(data, seed).facts


@cache
def _check_comparator(name: str, images: ImageFacts, recipe: Recipe) -> None:
    """Raise `SettingsError` now, not after the other trainings, for a model that does not fit."""
    comparator(name, images, recipe)
