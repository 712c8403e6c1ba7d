"""What a final training trains, as job.json says it, and everything that follows from that."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from blockqnn.data import Dataset, load
from blockqnn.errors import SearchError, SettingsError
from blockqnn.network.timm_networks import build_comparator
from blockqnn.params import plan_from_dict
from blockqnn.settings import DataSettings, Plan, Recipe
from blockqnn.space import Block
from blockqnn.storage import read_json, write_atomically

if TYPE_CHECKING:
    from blockqnn.data.streamed.stream import ImageStream

VERSION = 1
Split = Literal["train", "everything"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One final training: of a block's network or of a timm model, on a split, with a seed."""

    label: str
    block: str | None
    timm: str | None
    split: Split
    seed: int
    data: str
    """The plan's label, which names data sets for people."""
    plan: Plan
    identity: str

    @property
    def subject(self) -> str:
        """The block's code or the model's name."""
        return self.block or self.timm or ""

    def facts(self) -> dict[str, Any]:
        """What result.json repeats of it."""
        names = ("label", "block", "timm", "split", "seed", "identity")
        return {name: getattr(self, name) for name in names}


def prepare_job(
    run: Path,
    *,
    label: str,
    split: Split,
    seed: int,
    data: str,
    plan: Plan,
    block: Block | None = None,
    timm: str | None = None,
) -> Path:
    """Write a training's job.json under `run` unless it has a result, and return its directory.

    The directory's name holds the identity of all that the result depends on, so that a changed
    setting or other images mean another training. What else the plan says (where the images lie,
    loaders, checkpoints) may change until the training has ended. Raises `SettingsError` for data
    that is not to be had and a timm model that does not fit it, and OSError.
    """
    code = str(block) if block is not None else None
    identity = _identity(code, timm, split, seed, plan)
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", label).strip("-.")[:40] or "network"
    directory = run / "trainings" / f"{name}-{split}-{seed}-{identity[:8]}"
    if not (directory / "result.json").exists():
        if timm is not None:
            _check_comparator(timm, plan.data, plan.seed, plan.recipe)
        directory.mkdir(parents=True, exist_ok=True)
        content = {
            "version": VERSION,
            "label": label,
            "block": code,
            "timm": timm,
            "split": split,
            "seed": seed,
            "data": data,
            "plan": plan.to_dict(),
            "identity": identity,
        }
        text = (json.dumps(content, indent=1) + "\n").encode()
        path = directory / "job.json"
        if not (path.exists() and path.read_bytes() == text):
            write_atomically(path, lambda file: file.write(text))
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
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SearchError(f"{path} is damaged ({error}): delete {directory} and go on") from None


def load_network(directory: Path) -> nn.Module:
    """The trained network of a finished training, on the CPU."""
    from blockqnn.network.weights import load_weights

    network, _ = load_weights(directory / "weights.safetensors")
    return network


@dataclass(frozen=True)
class _ImageFacts:
    """What a data set's images are."""

    fingerprint: str
    classes: int
    in_channels: int
    image_size: int


@cache
def _image_facts(data: DataSettings, seed: int) -> _ImageFacts:
    images: Dataset | ImageStream
    if data.streamed:
        from blockqnn.data.streamed.stream import open_stream

        images = open_stream(data, seed)
    else:
        images = load(data, seed)
    size = images.image_size
    return _ImageFacts(images.fingerprint, len(images.classes), images.in_channels, size)


@cache
def _check_comparator(name: str, data: DataSettings, seed: int, recipe: Recipe) -> None:
    """A timm model can be trained on the images, or `SettingsError`: now, not after the others."""
    images = _image_facts(data, seed)
    build_comparator(
        name,
        num_classes=images.classes,
        in_channels=images.in_channels,
        image_size=images.image_size,
        drop_path=recipe.drop_path,
        dropout=recipe.dropout,
    )


def _identity(code: str | None, timm: str | None, split: str, seed: int, plan: Plan) -> str:
    return _hash(code, timm, split, seed, plan, _image_facts(plan.data, plan.seed).fingerprint)


def identity_of(job: Job, fingerprint: str) -> str:
    return _hash(job.block, job.timm, job.split, job.seed, job.plan, fingerprint)


def _hash(
    code: str | None, timm: str | None, split: str, seed: int, plan: Plan, fingerprint: str
) -> str:
    network = plan.network.described() if code is not None else None
    size = plan.data.image_size
    parts = (code, timm, split, seed, network, asdict(plan.recipe), size, fingerprint)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
