"""The one training loop: a network, a recipe, a data set, and a checkpoint at the end of every
epoch.

Every random number of an epoch comes from (seed, purpose, epoch), so a training killed and resumed
draws the same batches and, on a CPU, ends with the same weights.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from blockqnn.data import Dataset, ImageSet, augment
from blockqnn.files import write_atomically
from blockqnn.recipe import Recipe
from blockqnn.seeds import seed_for

log = logging.getLogger(__name__)

DIGEST_BYTES = 32
EVALUATION_BATCH = 500


class NotFinite(ArithmeticError):
    """The loss became infinite or not a number; holds the curve up to then."""

    def __init__(self, epoch: int, curve: list[dict[str, float]]) -> None:
        super().__init__(f"the loss was not finite in epoch {epoch}")
        self.curve = curve


class NoBetterThanChance(ArithmeticError):
    """The first epoch ended no better than the best constant guess (paper section 4.2)."""

    def __init__(self, accuracy: float, curve: list[dict[str, float]]) -> None:
        super().__init__(f"the first epoch ended at {accuracy:.2f} %, no better than chance")
        self.curve = curve


@dataclass
class Checkpoint:
    """Where a training keeps its state, and what makes that state its own.

    `identity` names everything the result depends on: a checkpoint that carries another is not
    used.
    """

    path: Path
    identity: str

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint, atomically. Raises OSError when the disk is full."""
        # through memory: torch's own writer hides the OSError of a full disk in a RuntimeError
        buffer = io.BytesIO()
        torch.save({**state, "identity": self.identity}, buffer)
        content = buffer.getbuffer()

        def write(file: BinaryIO) -> None:
            file.write(hashlib.sha256(content).digest())
            file.write(content)

        write_atomically(self.path, write)

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The saved state; None when there is none, it is damaged, or it belongs to something else.

        Torch's format does not notice a changed bit among the weights: the digest before it does.
        """
        try:
            with self.path.open("rb") as file:
                digest, content = file.read(DIGEST_BYTES), file.read()
        except FileNotFoundError:
            return None
        if hashlib.sha256(content).digest() != digest:
            log.warning("%s is damaged and is not used", self.path)
            return None
        try:
            state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        except pickle.UnpicklingError as error:  # it holds more than weights: never run it
            log.warning("%s is not a checkpoint and is not used: %s", self.path, error)
            return None
        if not isinstance(state, dict) or state.get("identity") != self.identity:
            log.warning("%s belongs to another training and is not used", self.path)
            return None
        return state


@dataclass
class Trainer:
    """Trains one network by one recipe; resumes from its checkpoint.

    `restart` counts the fresh starts before this one, each with a smaller learning rate. `chance`
    is the held-out accuracy in percent that the first epoch has to exceed; None does not ask.
    """

    network: nn.Module
    recipe: Recipe
    data: Dataset
    seed: int
    device: torch.device
    checkpoint: Checkpoint | None = None
    restart: int = 0
    chance: float | None = None
    curve: list[dict[str, float]] = field(default_factory=list)

    def run(self) -> list[dict[str, float]]:
        """Train to the last epoch and return the curve: one mapping an epoch, as `Outcome`
        describes.

        Raises `NotFinite`, `NoBetterThanChance`, torch's out-of-memory errors, and OSError when the
        checkpoint cannot be written.
        """
        self.network.to(self.device)
        self.network.to(memory_format=torch.channels_last)
        optimizer = self._optimizer()
        self._resume(optimizer)
        for epoch in range(len(self.curve), self.recipe.epochs):
            self._epoch(epoch, optimizer)
            if self.checkpoint is not None and epoch + 1 < self.recipe.epochs:
                self.checkpoint.save(
                    {
                        "network": self.network.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "curve": self.curve,
                        "restart": self.restart,
                    }
                )
        return self.curve

    def _optimizer(self) -> torch.optim.Optimizer:
        recipe, parameters = self.recipe, self.network.parameters()
        rate, penalty = recipe.learning_rate, recipe.weight_decay
        if recipe.optimizer == "adam":
            betas = (recipe.momentum, 0.999)
            return torch.optim.Adam(parameters, rate, betas, 1e-8, weight_decay=penalty, fused=True)
        return torch.optim.SGD(
            parameters, rate, momentum=recipe.momentum, weight_decay=penalty, fused=True
        )

    def _resume(self, optimizer: torch.optim.Optimizer) -> None:
        state = self.checkpoint.load(self.device) if self.checkpoint else None
        if state is not None and state["restart"] == self.restart:
            self.network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            self.curve = state["curve"]

    def _epoch(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        begun = time.perf_counter()
        rate = self.recipe.learning_rate_at(epoch) * self.recipe.restart_factor**self.restart
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, train_accuracy = self._train(epoch, optimizer)
        if not (math.isfinite(loss) and _is_finite(self.network)):
            raise NotFinite(epoch + 1, self.curve)
        accuracy = evaluate(self.network, self.data, self.data.held_out, self.recipe)
        self.curve.append(
            {
                "epoch": epoch + 1,
                "loss": loss,
                "train_accuracy": train_accuracy,
                "accuracy": accuracy,
                "learning_rate": rate,
                "seconds": time.perf_counter() - begun,
            }
        )
        if epoch == 0 and self.chance is not None and accuracy <= self.chance:
            raise NoBetterThanChance(accuracy, self.curve)

    def _train(self, epoch: int, optimizer: torch.optim.Optimizer) -> tuple[float, float]:
        """One pass over the training images: mean loss and accuracy in percent."""
        data, recipe = self.data, self.recipe
        order = torch.randperm(
            len(data.train), generator=_generator(torch.device("cpu"), self.seed, "order", epoch)
        ).to(self.device)
        draws = _generator(self.device, self.seed, "augment", epoch)
        total_loss = torch.zeros((), device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self.network.train()
        seen = 0
        for batch in order.split(recipe.batch):
            if len(batch) == 1:  # batch norm has no variance of one image
                continue
            images = data.normalised(data.train.images.index_select(0, batch))
            images = augment(images, recipe, draws)
            labels = data.train.labels.index_select(0, batch)
            with mixed_precision(self.device, recipe.precision):
                logits = self.network(images)
            loss = nn.functional.cross_entropy(logits.float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            # summed on the device: reading a value would make the device wait at every step
            total_loss += loss.detach() * len(batch)
            correct += (logits.detach().argmax(1) == labels).sum()
            seen += len(batch)
        return float(total_loss) / seen, 100.0 * int(correct) / seen


@torch.no_grad()
def evaluate(network: nn.Module, data: Dataset, images: ImageSet, recipe: Recipe) -> float:
    """Accuracy in percent on an image set."""
    network.eval()
    device = images.labels.device
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for start in range(0, len(images), EVALUATION_BATCH):
        stop = start + EVALUATION_BATCH
        with mixed_precision(device, recipe.precision):
            logits: Tensor = network(data.normalised(images.images[start:stop]))
        correct += (logits.argmax(1) == images.labels[start:stop]).sum()
    return 100.0 * int(correct) / len(images)


def mixed_precision(device: torch.device, precision: str) -> torch.autocast:
    """Autocast to bfloat16 when the recipe says so, or says auto and the device is fast in it."""
    enabled = precision == "bfloat16" or (precision == "auto" and fast_in_bfloat16(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def fast_in_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware; emulation is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def _is_finite(network: nn.Module) -> bool:
    """Whether every weight is a number: an epoch's last step shows in no loss of that epoch."""
    return bool(torch.stack([weight.isfinite().all() for weight in network.parameters()]).all())


def _generator(device: torch.device, seed: int, purpose: str, epoch: int) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed_for(seed, purpose, epoch))
