"""What a final training needs of its job: the images, and the network with fresh weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from blockqnn.data import Dataset, Feed, MemoryFeed, load
from blockqnn.data.feed import Share
from blockqnn.errors import SearchError
from blockqnn.network import build_network
from blockqnn.network.timm_networks import build_comparator, count_macs
from blockqnn.settings import Recipe
from blockqnn.space import LONGEST, Block
from blockqnn.training.final.job import Job, identity_of

if TYPE_CHECKING:
    from blockqnn.data.streamed.stream import ImageStream


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
        found = identity_of(job, self._images.fingerprint)
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

    def feed(self, recipe: Recipe, seed: int, device: torch.device, part: Share) -> Feed:
        """The batches of the job's split, for one process."""
        everything = self._job.split == "everything"
        if self.stream is not None:
            from blockqnn.data.streamed.stream_feed import StreamFeed

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
