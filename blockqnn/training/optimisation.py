"""A recipe's optimiser, schedule and loss, made by timm's factories and torch."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from blockqnn.settings import Recipe

if TYPE_CHECKING:
    from timm.scheduler.scheduler import Scheduler

BCE_THRESHOLD = 0.2
"""Above it a mixed target counts as 1, as in timm's A2 recipe."""


def create_optimizer(network: nn.Module, recipe: Recipe, rate: float) -> torch.optim.Optimizer:
    """timm's optimiser of the recipe's name, fused where torch has it so."""
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
    """timm's schedule, told at every step how many were done; an epoch has `steps`."""
    from timm.scheduler import create_scheduler_v2

    schedule: Scheduler
    schedule, _ = create_scheduler_v2(
        optimizer,
        recipe.schedule,
        num_epochs=recipe.epochs,
        decay_epochs=recipe.decay_epochs,
        decay_milestones=list(recipe.milestones),
        decay_rate=recipe.decay,
        min_lr=recipe.min_learning_rate,
        warmup_lr=recipe.warmup_learning_rate,
        warmup_epochs=recipe.warmup_epochs,
        step_on_epochs=False,
        updates_per_epoch=max(1, steps),
    )
    return schedule


def create_loss(recipe: Recipe) -> nn.Module:
    """The mean loss of logits and labels, or soft targets where images are mixed."""
    from timm.loss import BinaryCrossEntropy

    smoothing = recipe.label_smoothing
    if recipe.loss == "bce":
        return BinaryCrossEntropy(smoothing, target_threshold=BCE_THRESHOLD)
    mixed = bool(recipe.mixup or recipe.cutmix)  # whose targets are smooth already
    return nn.CrossEntropyLoss(label_smoothing=0.0 if mixed else smoothing)
