"""The one training loop: a network, a recipe, a feed of batches, and checkpoints, in the middle of
an epoch too.

Every random number comes from (seed, purpose, epoch and step), so a training killed and resumed
draws the same batches and, on a CPU, ends with the same weights. Optimisers, schedules, mixup, the
average of weights and clipping are timm's.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from blockqnn.data import Batch, Feed
from blockqnn.seeds import seed_for
from blockqnn.settings import CheckpointSettings, Recipe
from blockqnn.training.checkpoint import Checkpoint
from blockqnn.training.distributed import Group, synchronise_batch_norm
from blockqnn.training.optimisation import create_loss, create_optimizer, create_schedule
from blockqnn.training.precision import count_correct, mixed_precision

AGREE_EVERY = 10
"""Steps between two questions to all processes whether to save or stop; one is asked at the end of
every epoch too."""


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


class Interrupted(Exception):
    """Somebody asked the training to stop; its state is saved."""


@dataclass
class _Totals:
    """Sums over the steps of the running epoch, by this process."""

    loss: Tensor
    correct: Tensor
    seen: int = 0
    seconds: float = 0.0


@dataclass
class Trainer:
    """Trains one network by one recipe; resumes from its checkpoint.

    `restart` counts the fresh starts before this one, each with a smaller learning rate. `chance`
    is the held-out accuracy in percent that the first epoch has to exceed; None does not ask.
    `group` are the processes that train together. `best` gets the weights of the best held-out
    epoch. `stop` is asked at every step whether to save and raise `Interrupted`; `watch` is told
    (epoch from 0, steps done of it). `judge` sees the curve after every epoch but the last, before
    the checkpoint does, and may raise what ends the training. `save_end` writes a checkpoint after
    the last epoch too.
    """

    network: nn.Module
    recipe: Recipe
    feed: Feed
    seed: int
    device: torch.device
    checkpoint: Checkpoint | None = None
    restart: int = 0
    chance: float | None = None
    group: Group = field(default_factory=Group)
    cadence: CheckpointSettings = field(default_factory=lambda: CheckpointSettings(minutes=None))
    best: Checkpoint | None = None
    save_end: bool = False
    stop: Callable[[], bool] = lambda: False
    watch: Callable[[int, int], None] = lambda epoch, step: None
    judge: Callable[[list[dict[str, float]]], None] = lambda curve: None
    curve: list[dict[str, float]] = field(default_factory=list)

    def run(self) -> list[dict[str, float]]:
        """Train to the last epoch and return the curve: one mapping an epoch, as `Outcome`
        describes, without an accuracy where nothing is held out.

        Raises `NotFinite`, `NoBetterThanChance`, `Interrupted`, torch's out-of-memory errors, and
        OSError when the checkpoint cannot be written.
        """
        self._prepare()
        first = self._resume()
        for epoch in range(len(self.curve), self.recipe.epochs):
            self._epoch(epoch, first)
            first = 0
            done = epoch + 1
            if done < self.recipe.epochs:
                self.judge(self.curve)
            due = done % self.cadence.epochs == 0 and done < self.recipe.epochs
            if due or (self.save_end and done == self.recipe.epochs):
                self._save(0)
        return self.curve

    @property
    def kept(self) -> nn.Module:
        """The network to evaluate and to keep: the average of the weights if the recipe has one."""
        return self._ema.module if self._ema is not None else self.network

    def _prepare(self) -> None:
        from timm.data import Mixup
        from timm.utils import ModelEmaV3

        recipe = self.recipe
        self.network.to(self.device)
        self.network.to(memory_format=torch.channels_last)
        if recipe.sync_batch_norm and self.group.world > 1:
            self.network = synchronise_batch_norm(self.network, self.device)
        self._steps = self.feed.steps()
        rate = recipe.learning_rate * recipe.restart_factor**self.restart
        self._optimizer = create_optimizer(self.network, recipe, rate)
        self._scheduler = create_schedule(self._optimizer, recipe, self._steps)
        scaled = recipe.precision == "float16"
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self._criterion = create_loss(recipe)
        classes = len(self.feed.classes)
        self._mixup = None
        if recipe.mixup or recipe.cutmix:
            self._mixup = Mixup(
                recipe.mixup,
                recipe.cutmix,
                label_smoothing=recipe.label_smoothing,
                num_classes=classes,
            )
        self._ema = None
        if recipe.ema:
            self._ema = ModelEmaV3(self.network, decay=recipe.ema, use_warmup=True)
        if recipe.compile:
            self.network.compile()
        self._parallel = self.group.parallel(self.network, self.device)
        self._totals = self._no_totals()
        self._saved = time.monotonic()

    def _resume(self) -> int:
        """Take the checkpoint's state over; return the steps done of the epoch it is in."""
        if self.checkpoint is None:
            return 0
        content = self.checkpoint.read() if self.group.rank == 0 else None
        state = self.checkpoint.parse(self.group.share(content, self.device), self.device)
        if state is None or state["restart"] != self.restart:
            return 0
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self._ema is not None:
            self._ema.module.load_state_dict(state["ema"])
        self.curve = state["curve"]
        step = int(state["step"])
        if step and self.group.rank == 0:  # the sums are those of all processes
            loss, correct, seen, seconds = state["totals"]
            self._totals.loss += loss
            self._totals.correct += correct
            self._totals.seen, self._totals.seconds = seen, seconds
        return step

    def _save(self, step: int) -> None:
        """Put the state after `step` steps of the running epoch on disk."""
        totals = self._totals_of_all() if step else None
        if self.checkpoint is not None and self.group.rank == 0:
            self.checkpoint.save(
                {
                    "network": self.network.state_dict(),
                    "optimizer": self._optimizer.state_dict(),
                    "scaler": self._scaler.state_dict(),
                    "ema": self._ema.module.state_dict() if self._ema is not None else None,
                    "curve": self.curve,
                    "restart": self.restart,
                    "step": step,
                    "totals": totals,
                }
            )
        self._saved = time.monotonic()

    def _epoch(self, epoch: int, first: int) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        begun = time.perf_counter() - self._totals.seconds
        self._scheduler.step_update(epoch * self._steps)
        rate = self._optimizer.param_groups[0]["lr"]
        self._train(epoch, first, begun)
        loss, correct, seen, _ = self._totals_of_all()
        trained = time.perf_counter() - begun
        self._totals = self._no_totals()
        self._share_statistics()
        if not (math.isfinite(loss) and _is_finite(self.network)):
            raise NotFinite(epoch + 1, self.curve)
        entry: dict[str, float] = {
            "epoch": epoch + 1,
            "loss": loss / max(1, seen),
            "train_accuracy": 100.0 * correct / max(1, seen),
            "learning_rate": rate,
        }
        if self.feed.held_out_images:
            entry["accuracy"] = self._held_out_accuracy()
        entry["images_per_second"] = seen / trained
        if self.device.type == "cuda":
            entry["device_memory"] = torch.cuda.max_memory_allocated(self.device)
        entry["seconds"] = time.perf_counter() - begun
        best = max((past["accuracy"] for past in self.curve if "accuracy" in past), default=-1.0)
        self.curve.append(entry)
        accuracy = entry.get("accuracy", -1.0)
        if self.best is not None and self.group.rank == 0 and accuracy > best:
            self.best.save({"network": self.kept.state_dict(), "epoch": epoch + 1})
        if epoch == 0 and self.chance is not None and accuracy <= self.chance:
            raise NoBetterThanChance(accuracy, self.curve)

    def _train(self, epoch: int, first: int, begun: float) -> None:
        """The steps of an epoch from `first` on, summed up in `_totals`."""
        self.network.train()
        for step, batch in enumerate(self.feed.batches(epoch, first), start=first):
            update = epoch * self._steps + step
            self._scheduler.step_update(update)
            with self._noise(epoch, step):
                self._step(batch)
            if self._ema is not None:
                self._ema.update(self.network, update + 1)
            self.watch(epoch, step + 1)
            agree = (step + 1) % AGREE_EVERY == 0 or step + 1 == self._steps
            if self.group.world == 1 or agree:
                self._totals.seconds = time.perf_counter() - begun
                self._save_or_stop(step + 1)

    def _step(self, batch: Batch) -> None:
        """One update of the weights, in as many parts as the recipe says."""
        recipe, totals = self.recipe, self._totals
        images, targets = batch.images, batch.labels
        if self._mixup is not None:
            images, targets = self._mixed(images, targets)
        self._optimizer.zero_grad(set_to_none=True)
        parts = max(1, min(recipe.accumulate, len(images) // 2))
        pieces = zip(
            images.tensor_split(parts),
            targets.tensor_split(parts),
            batch.labels.tensor_split(parts),
            strict=True,
        )
        for number, (some, wanted, labels) in enumerate(pieces, start=1):
            with self._without_averaging() if number < parts else nullcontext():
                with mixed_precision(self.device, recipe.precision):
                    logits = self._parallel(some)
                loss = self._criterion(logits.float(), wanted)
                # the mean over the whole batch: torch averages gradients over the processes
                weight = len(some) * self.group.world / batch.size
                scaled = loss if weight == 1.0 else loss * weight
                self._scaler.scale(scaled).backward()
            # summed on the device: reading a value would make the device wait at every step
            totals.loss += loss.detach() * len(some)
            totals.correct += (logits.detach().argmax(1) == labels).sum()
            totals.seen += len(some)
        if recipe.clip_gradient is not None:
            from timm.utils import dispatch_clip_grad

            self._scaler.unscale_(self._optimizer)
            dispatch_clip_grad(self.network.parameters(), recipe.clip_gradient, mode="norm")
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def _without_averaging(self) -> AbstractContextManager[None]:
        """Gradients of a batch's parts are averaged over the processes once, with the last."""
        network = self._parallel
        if isinstance(network, nn.parallel.DistributedDataParallel):
            averaging: AbstractContextManager[None] = network.no_sync()
            return averaging
        return nullcontext()

    def _mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        from timm.data.mixup import mixup_target

        assert self._mixup is not None
        if len(images) % 2:  # timm mixes pairs
            smoothing, classes = self.recipe.label_smoothing, len(self.feed.classes)
            return images, mixup_target(labels, classes, smoothing=smoothing)
        mixed, targets = self._mixup(images, labels)
        return mixed, targets

    @contextmanager
    def _noise(self, epoch: int, step: int) -> Iterator[None]:
        """Dropped paths and mixing draw from global generators: give them this step's seed."""
        recipe = self.recipe
        if not (recipe.drop_path or recipe.dropout or self._mixup is not None):
            yield
            return
        seed = seed_for(self.seed, "noise", f"{epoch}/{step}/{self.group.rank}")
        numpy_state = np.random.get_state()  # noqa: NPY002, timm mixes with it
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            try:
                yield
            finally:
                np.random.set_state(numpy_state)  # noqa: NPY002

    def _save_or_stop(self, step: int) -> None:
        """Save when it is time to, or stop when asked to, all processes together."""
        minutes = self.cadence.minutes
        due = minutes is not None and time.monotonic() - self._saved >= 60 * minutes
        due, stop = self.group.any([due, self.stop()], self.device)
        if due or stop:
            self._save(step)
        if stop:
            raise Interrupted

    def _share_statistics(self) -> None:
        """Every process gets the mean of all processes' statistics of batch norm."""
        if self.group.world > 1:
            from timm.utils import distribute_bn

            distribute_bn(self.network, self.group.world, reduce=True)
            if self._ema is not None:
                distribute_bn(self._ema.module, self.group.world, reduce=True)

    def _held_out_accuracy(self) -> float:
        """Percent of the held-out images, over all processes."""
        counts = count_correct(self.kept, self.feed.held_out(), self.device, self.recipe.precision)
        correct, seen = self.group.sum(counts).tolist()
        return float(100.0 * correct / seen)

    def _no_totals(self) -> _Totals:
        zero = torch.zeros((), device=self.device)
        return _Totals(zero, torch.zeros((), dtype=torch.int64, device=self.device))

    def _totals_of_all(self) -> tuple[float, int, int, float]:
        """Loss, correct answers and images, summed over all processes; seconds of this one."""
        totals = self._totals
        sums = torch.stack([totals.loss.double(), totals.correct.double()])
        loss, correct = self.group.sum(sums).tolist()
        seen = torch.tensor(totals.seen, device=self.device)
        return loss, int(correct), int(self.group.sum(seen)), totals.seconds


def _is_finite(network: nn.Module) -> bool:
    """Whether every weight is a number: an epoch's last step shows in no loss of that epoch."""
    return bool(torch.stack([weight.isfinite().all() for weight in network.parameters()]).all())
