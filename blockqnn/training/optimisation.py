"""A recipe's optimiser, schedule, loss and mixing of images, made by timm's factories and torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from blockqnn.settings import Recipe

if TYPE_CHECKING:
    from timm.scheduler.scheduler import Scheduler

BCE_THRESHOLD = 0.2
"""Mixed targets above this count as 1 in the loss `bce`, as in timm's A2 recipe."""


def create_optimizer(network: nn.Module, recipe: Recipe, rate: float) -> torch.optim.Optimizer:
    """The recipe's optimiser with the learning rate `rate`, fused if torch has a fused one."""
    from timm.optim import create_optimizer_v2, get_optimizer_class, get_optimizer_info

    info = get_optimizer_info(recipe.optimizer)
    options: dict[str, Any] = {}
    if info.has_betas and (info.num_betas or 2) == 2:
        options["betas"] = (recipe.momentum, 0.999)
    kind = get_optimizer_class(recipe.optimizer, bind_defaults=False)
    if kind.__module__.startswith("torch.optim") and "fused" in inspect.signature(kind).parameters:
        options["fused"] = True
    return create_optimizer_v2(
        network,
        opt=recipe.optimizer,
        lr=rate,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        filter_bias_and_bn=not recipe.decay_all,
        **options,
    )


def create_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> Scheduler:
    """The recipe's learning rate schedule, to be told before each step how many steps were done.

    An epoch has `steps` of them.
    """
    from timm.scheduler import create_scheduler_v2

    linear = recipe.schedule == "linear"  # a polynomial of degree 1 that begins after the warm-up
    schedule: Scheduler = create_scheduler_v2(
        optimizer,
        "poly" if linear else recipe.schedule,
        num_epochs=recipe.epochs - recipe.warmup_epochs if linear else recipe.epochs,
        warmup_prefix=linear,
        decay_epochs=recipe.decay_epochs,
        decay_milestones=list(recipe.milestones),
        decay_rate=1.0 if linear else recipe.decay,
        min_lr=recipe.min_learning_rate,
        warmup_lr=recipe.warmup_learning_rate,
        warmup_epochs=recipe.warmup_epochs,
        step_on_epochs=False,
        updates_per_epoch=max(1, steps),
    )[0]
    return schedule


def create_loss(recipe: Recipe) -> nn.Module:
    """The recipe's mean loss, of logits `(N, classes)` and labels, or soft targets if it mixes."""
    from timm.loss import BinaryCrossEntropy

    smoothing = recipe.label_smoothing
    if recipe.loss == "bce":
        return BinaryCrossEntropy(smoothing, target_threshold=BCE_THRESHOLD)
    mixed = bool(recipe.mixup or recipe.cutmix)  # mixing has smoothed the targets already
    return nn.CrossEntropyLoss(label_smoothing=0.0 if mixed else smoothing)


def create_mixing(
    recipe: Recipe, classes: int
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """The recipe's mixup and CutMix of images and labels into images and soft targets, if any."""
    if not (recipe.mixup or recipe.cutmix):
        return None
    from timm.data.mixup import Mixup, mixup_target

    smoothing = recipe.label_smoothing
    mixup = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=smoothing, num_classes=classes)

    def mix(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if len(images) % 2:  # timm mixes pairs
            return images, mixup_target(labels, classes, smoothing=smoothing)
        mixed, targets = mixup(images, labels)
        return mixed, targets

    return mix
