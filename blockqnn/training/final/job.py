"""What a final training trains, as job.json says it, and everything that follows from that."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from blockqnn import __version__
from blockqnn.network.timm_networks import build_comparator, count_macs
from blockqnn.settings.search import DataSettings
from blockqnn.data.dataset import Dataset, load
from blockqnn.errors import SearchError, SettingsError
from blockqnn.data.feed import Feed, MemoryFeed, Part
from blockqnn.storage.files import read_json, write_atomically
from blockqnn.network.network import build_network
from blockqnn.params import plan_from_dict
from blockqnn.settings.plan import Plan
from blockqnn.settings.recipe import Recipe
from blockqnn.space.spaces import LONGEST, Block
from blockqnn.zoo import BLOCKS

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


def read_result(directory: Path) -> dict[str, Any] | None:
    """The result of a training; None while there is none. Raises `SearchError` for a damaged
    file.
    """
    path = directory / "result.json"
    try:
        result = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SearchError(f"{path} is damaged ({error}): delete it to train again") from None
    if not isinstance(result, dict):
        raise SearchError(f"{path} is damaged: delete it to train again")
    return result


def load_network(directory: Path) -> nn.Module:
    """The trained network of a finished training, on the CPU."""
    from blockqnn.network.weights import load_weights

    network, _ = load_weights(directory / "weights.safetensors")
    return network


def block_of(name: str) -> tuple[str, Block]:
    """(label, block) of a zoo name or a code. Raises `SettingsError`."""
    if name in BLOCKS:
        return name, BLOCKS[name]
    try:
        block = Block.parse(name, LONGEST)
    except ValueError as error:
        raise SettingsError(
            f"blocks has {name!r}: {error}; give one of {', '.join(BLOCKS)}, or a code such as "
            "(1,1,3,0,0)(2,7,0,0,0)"
        ) from None
    return f"block-{block.key[:6]}", block


class Subject:
    """The images and the network of a job."""

    def __init__(self, job: Job) -> None:
        """Opens the data set. Raises `SettingsError` when it is not to be had."""
        self._job = job
        self.memory: Dataset | None = None
        self.stream: ImageStream | None = None
        data, seed = job.plan.data, job.plan.seed
        if data.streamed:
            from blockqnn.data.streamed.stream import open_stream

            self.stream = open_stream(data, seed)
        else:
            self.memory = load(data, seed)

    @property
    def _images(self) -> Dataset | ImageStream:
        images = self.memory if self.memory is not None else self.stream
        assert images is not None
        return images

    def check(self, job: Job, directory: Path) -> None:
        """Refuse images that are not those the job was written for."""
        found = _identity_of(job, self._images.fingerprint)
        if found != job.identity:
            raise SearchError(
                f"the images of data.root are not those that {directory} was begun with: restore "
                "them, or start the flow again, which begins another training"
            )

    def network(self, seed: int) -> nn.Module:
        """The network with fresh weights."""
        job, recipe, images = self._job, self._job.plan.recipe, self._images
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if job.timm is not None:
                return build_comparator(
                    job.timm,
                    num_classes=len(images.classes),
                    in_channels=images.in_channels,
                    image_size=images.image_size,
                    drop_path=recipe.drop_path,
                    dropout=recipe.dropout,
                )
            return build_network(
                Block.parse(job.block or "", LONGEST),
                filters=job.plan.network.filters,
                repeats=job.plan.network.repeats,
                num_classes=len(images.classes),
                in_channels=images.in_channels,
                skeleton=job.plan.network.skeleton,
                connections=job.plan.network.connections,
                drop_path=recipe.drop_path,
                dropout=recipe.dropout,
            )

    def macs(self, network: nn.Module) -> int:
        """Multiply-accumulates of one image."""
        job, images = self._job, self._images
        if job.block is None:
            return count_macs(network, images.in_channels, images.image_size)
        return job.plan.network.cost(
            Block.parse(job.block, LONGEST),
            num_classes=len(images.classes),
            in_channels=images.in_channels,
            image_size=images.image_size,
        ).macs

    def feed(self, recipe: Recipe, seed: int, device: torch.device, part: Part) -> Feed:
        """The batches of the job's split, for one process."""
        everything = self._job.split == "everything"
        if self.stream is not None:
            from blockqnn.data.streamed.stream import StreamFeed

            return StreamFeed(self.stream, recipe, seed, device, part, everything=everything)
        assert self.memory is not None
        self.memory = self.memory.everything() if everything else self.memory
        return MemoryFeed(self.memory.to(device), recipe, seed, device, part)

    def facts(self) -> dict[str, Any]:
        """What result.json says about the images."""
        images, everything = self._images, self._job.split == "everything"
        mean, std = _fractions(images)
        counts = (
            (len(images.train), len(images.held_out))
            if isinstance(images, Dataset)
            else images.counts(everything)
        )
        return {
            "label": self._job.data,
            "name": images.name,
            "classes": list(images.classes),
            "in_channels": images.in_channels,
            "image_size": images.image_size,
            "fingerprint": images.fingerprint,
            "train_images": counts[0],
            "held_out_images": counts[1],
            "mean": mean,
            "std": std,
        }

    def metadata(self, job: Job) -> dict[str, str]:
        """What the weights' file says about the network in it."""
        images, network = self._images, job.plan.network
        mean, std = _fractions(images)
        facts: dict[str, Any] = {
            "label": job.label,
            "data": job.data,
            "num_classes": len(images.classes),
            "in_channels": images.in_channels,
            "image_size": images.image_size,
            "classes": list(images.classes),
            "mean": mean,
            "std": std,
            "identity": job.identity,
        }
        if job.block is not None:
            facts |= {"block": job.block, **network.described()}
        else:
            facts |= {"timm": job.timm}
        return {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()}


def _fractions(images: Dataset | ImageStream) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel, pixels from 0 to 1."""
    if isinstance(images, Dataset):
        mean, std = images.mean, images.std
        return (mean.flatten().cpu() / 255).tolist(), (std.flatten().cpu() / 255).tolist()
    return list(images.mean), list(images.std)


@dataclass(frozen=True)
class _Kind:
    """What a data set's images are."""

    fingerprint: str
    classes: int
    in_channels: int
    image_size: int


@cache
def _kind(data: DataSettings, seed: int) -> _Kind:
    images: Dataset | ImageStream
    if data.streamed:
        from blockqnn.data.streamed.stream import open_stream

        images = open_stream(data, seed)
    else:
        images = load(data, seed)
    size = images.image_size
    return _Kind(images.fingerprint, len(images.classes), images.in_channels, size)


@cache
def _check_comparator(name: str, data: DataSettings, seed: int, recipe: Recipe) -> None:
    """A timm model can be trained on the images, or `SettingsError`: now, not after the others."""
    images = _kind(data, seed)
    build_comparator(
        name,
        num_classes=images.classes,
        in_channels=images.in_channels,
        image_size=images.image_size,
        drop_path=recipe.drop_path,
        dropout=recipe.dropout,
    )


def _identity(code: str | None, timm: str | None, split: str, seed: int, plan: Plan) -> str:
    return _hash(code, timm, split, seed, plan, _kind(plan.data, plan.seed).fingerprint)


def _identity_of(job: Job, fingerprint: str) -> str:
    return _hash(job.block, job.timm, job.split, job.seed, job.plan, fingerprint)


def _hash(
    code: str | None, timm: str | None, split: str, seed: int, plan: Plan, fingerprint: str
) -> str:
    network = plan.network.described() if code is not None else None
    size = plan.data.image_size
    parts = (code, timm, split, seed, network, asdict(plan.recipe), size, fingerprint)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def commit() -> str | None:
    """The commit of the checkout that this package runs from, marked when it has changes."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def versions() -> dict[str, str]:
    """Of what computes the result."""
    import timm

    return {"blockqnn": __version__, "torch": torch.__version__, "timm": timm.__version__}
