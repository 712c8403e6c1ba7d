"""The network of a final training, and whether the images are those of its job."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from blockqnn.data.feed import CROP
from blockqnn.data.images import ImageFacts
from blockqnn.errors import SearchError
from blockqnn.network import network_of
from blockqnn.network.timm_networks import count_macs
from blockqnn.space import LONGEST, Block
from blockqnn.training.final.job import Job, comparator, identity_of


def check_images(job: Job, images: ImageFacts, directory: Path) -> None:
    """Raise `SearchError` for images that are not those the job was written for."""
    if identity_of(job, images.fingerprint) != job.identity:
        raise SearchError(
            f"the images of data.root are not those that {directory} was begun with: restore "
            "them, or start the flow again, which begins another training"
        )


def fresh_network(job: Job, images: ImageFacts, seed: int) -> nn.Module:
    """The job's network on the CPU, with weights drawn from the seed."""
    recipe = job.plan.recipe
    if job.block is not None:
        block = Block.parse(job.block, LONGEST)
        return network_of(job.plan.network, block, images, recipe, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return comparator(job.timm or "", images, recipe)


def macs_of(job: Job, images: ImageFacts, network: nn.Module) -> int:
    """Multiply-accumulates of one image: a block's from its code, a timm model's by counting."""
    if job.block is None:
        return count_macs(network, images.in_channels, images.image_size)
    return job.plan.network.cost(
        Block.parse(job.block, LONGEST),
        num_classes=len(images.classes),
        in_channels=images.in_channels,
        image_size=images.image_size,
    ).macs


def weights_metadata(job: Job, images: ImageFacts) -> dict[str, str]:
    """What the file of the weights says about their network, as `load_weights` reads it."""
    facts: dict[str, Any] = {
        "label": job.label,
        "data": job.data,
        "num_classes": len(images.classes),
        "in_channels": images.in_channels,
        "image_size": images.image_size,
        "classes": images.classes,
        "crop": CROP if job.plan.data.streamed else 1.0,
        "mean": images.mean,
        "std": images.std,
        "identity": job.identity,
    }
    if job.block is None:
        facts |= {"timm": job.timm}
    else:
        facts |= {"block": job.block, **job.plan.network.described()}
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()}
