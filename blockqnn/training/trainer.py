"""The one training loop: it trains a network by a recipe and saves its state, in mid-epoch too.

Every random number comes from (seed, purpose, epoch and step). A training that was killed and goes
on therefore draws the same batches and, on a CPU, ends with the same weights. Optimisers,
schedules, mixup, the average of weights and clipping are timm's.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from blockqnn.data import Batch, Feed
from blockqnn.seeds import seed_for
from blockqnn.settings import CheckpointSettings, Recipe
from blockqnn.training import optimisation
from blockqnn.training.checkpoint import Checkpoint
from blockqnn.training.distributed import Group, synchronise_batch_norm
from blockqnn.training.precision import count_correct, mixed_precision

AGREE_EVERY = 10
"""Steps after which all processes agree anew whether to save or stop. They also do so at the end of
every epoch."""


FELL = 2.0
"""Standard errors by which the loss falls within an epoch in which a network learns something."""


class NotFinite(ArithmeticError):
    """The loss or a weight became infinite or not a number. `curve` has the epochs before."""

    def __init__(self, epoch: int, curve: list[dict[str, float]]) -> None:
        super().__init__(f"the loss was not finite in epoch {epoch}")
        self.curve = curve


class NoBetterThanChance(ArithmeticError):
    """The first epoch ended no better than the best constant guess (paper section 4.2).

    `curve` has that epoch.
    """

    def __init__(self, accuracy: float, curve: list[dict[str, float]]) -> None:
        super().__init__(f"the first epoch ended at {accuracy:.2f} %, no better than chance")
        self.curve = curve


class Interrupted(Exception):
    """The training was asked to stop and has saved its state."""


@dataclass
class _Totals:
    """What this process has added up in the running epoch.

    Tensors stay on the device, which would have to wait if a value were read at every step.
    """

    loss: Tensor
    correct: Tensor
    seen: int = 0
    seconds: float = 0.0


@dataclass
class Trainer:
    """Trains one network by one recipe, and goes on from its checkpoint if there is one."""

    network: nn.Module
    recipe: Recipe
    feed: Feed
    seed: int
    device: torch.device
    checkpoint: Checkpoint | None = None
    """Where the state of the training is saved. None saves nothing."""
    restart: int = 0
    """How often the training began anew. Every restart lowers the learning rate."""
    metric: str = "accuracy"
    """Which held-out accuracy the training is judged by: `accuracy`, or `balanced_accuracy`, the
    mean of the classes' accuracies, which the curve then has too."""
    chance: float | None = None
    """What the first epoch must exceed by that metric, in percent. None does not check."""
    patient: bool = False
    """Go on after a first epoch no better than chance if the loss fell in it, as on hard data."""
    group: Group = field(default_factory=Group)
    """The processes that train this network together."""
    cadence: CheckpointSettings = field(default_factory=lambda: CheckpointSettings(minutes=None))
    """How often the state is saved."""
    best: Checkpoint | None = None
    """Where the weights of the epoch with the best held-out accuracy are kept."""
    save_end: bool = False
    """Save the state after the last epoch too."""
    stop: Callable[[], bool] = lambda: False
    """Asked at every step: true saves the state and raises `Interrupted`."""
    watch: Callable[[int, int], None] = lambda epoch, step: None
    """Told after every step the epoch, from 0, and the steps done in it."""
    judge: Callable[[list[dict[str, float]]], None] = lambda curve: None
    """Given the curve after every epoch but the last, before it is saved. It may raise what ends
    the training."""
    curve: list[dict[str, float]] = field(default_factory=list)
    """One mapping for each epoch done, as `Outcome` describes."""

    def run(self) -> list[dict[str, float]]:
        """Train to the last epoch and return the curve.

        Its entries have no accuracy if no images are held out. Raises `NotFinite`,
        `NoBetterThanChance`, `Interrupted`, `SettingsError` for batch norm that cannot be
        synchronised, torch's out-of-memory errors, and OSError if the state cannot be saved.
        """
        self._prepare()
        first = self._resume()
        for epoch in range(len(self.curve), self.recipe.epochs):
            self._epoch(epoch, first)
            first = 0
            last = epoch + 1 == self.recipe.epochs
            if not last:
                self.judge(self.curve)
            if self.save_end if last else (epoch + 1) % self.cadence.epochs == 0:
                self._save(0)
        return self.curve

    @property
    def kept(self) -> nn.Module:
        """The network to evaluate and keep: the one with averaged weights if the recipe has one."""
        return self._ema.module if self._ema is not None else self.network

    def _prepare(self) -> None:
        from timm.utils import ModelEmaV3

        recipe = self.recipe
        self.network.to(self.device).to(memory_format=torch.channels_last)
        if recipe.sync_batch_norm and self.group.world > 1:
            self.network = synchronise_batch_norm(self.network, self.device)
        self._steps = self.feed.steps()
        rate = recipe.learning_rate * recipe.restart_factor**self.restart
        self._optimizer = optimisation.create_optimizer(self.network, recipe, rate)
        self._scheduler = optimisation.create_schedule(self._optimizer, recipe, self._steps)
        scaled = recipe.precision == "float16"
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self._criterion = optimisation.create_loss(recipe)
        self._mix = optimisation.create_mixing(recipe, len(self.feed.classes))
        self._ema = None
        if recipe.ema:
            self._ema = ModelEmaV3(self.network, decay=recipe.ema, use_warmup=True)
        if recipe.compile:
            self.network.compile()
        self._parallel = self.group.parallel(self.network, self.device)
        self._begin_totals()
        self._losses: list[Tensor] = []
        self._saved = time.monotonic()

    def _resume(self) -> int:
        """Take over the checkpoint's state and return the steps already done in its epoch."""
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
        """Save the state after `step` steps of the running epoch; 0 stands for its beginning."""
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
        """Train from step `first` of an epoch to its end and append its entry to the curve."""
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        begun = time.perf_counter() - self._totals.seconds
        started, worked = time.perf_counter(), time.process_time()
        self._scheduler.step_update(epoch * self._steps)
        rate = self._optimizer.param_groups[0]["lr"]
        self._train(epoch, first, begun)
        loss, correct, seen, _ = self._totals_of_all()
        trained = time.perf_counter() - begun
        self._begin_totals()
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
            entry |= self._held_out_accuracies()
        entry["images_per_second"] = seen / trained
        entry["cores"] = (time.process_time() - worked) / (time.perf_counter() - started)
        entry["memory"] = psutil.Process().memory_info().rss
        if on_gpu:
            entry["device_memory"] = torch.cuda.max_memory_allocated(self.device)
        entry["seconds"] = time.perf_counter() - begun
        self._end_epoch(entry)

    def _end_epoch(self, entry: dict[str, float]) -> None:
        """Append an entry to the curve, keep the best weights, and refuse a first epoch by chance.

        An epoch without an accuracy counts as one of -1 %.
        """
        accuracy, *before = (past.get(self.metric, -1.0) for past in (entry, *self.curve))
        self.curve.append(entry)
        if self.best is not None and self.group.rank == 0 and accuracy > max(before, default=-1.0):
            self.best.save({"network": self.kept.state_dict(), "epoch": entry["epoch"]})
        by_chance = not before and self.chance is not None and accuracy <= self.chance
        if by_chance and not (self.patient and _fell(self._losses)):
            raise NoBetterThanChance(accuracy, self.curve)

    def _train(self, epoch: int, first: int, begun: float) -> None:
        """Take the steps of an epoch from `first` on and add them up in `_totals`."""
        self.network.train()
        for step, batch in enumerate(self.feed.batches(epoch, first), start=first):
            update = epoch * self._steps + step
            self._scheduler.step_update(update)
            with self._noise(epoch, step):
                self._step(batch)
            if self._ema is not None:
                self._ema.update(self.network, update + 1)
            if self.patient and not self.curve:
                self._losses.append(self._totals.loss / self._totals.seen)
            self.watch(epoch, step + 1)
            agree = (step + 1) % AGREE_EVERY == 0 or step + 1 == self._steps
            if self.group.world == 1 or agree:
                self._totals.seconds = time.perf_counter() - begun
                self._save_or_stop(step + 1)

    def _step(self, batch: Batch) -> None:
        """Update the weights once, from a batch taken in `recipe.accumulate` parts."""
        recipe = self.recipe
        images, targets = batch.images, batch.labels
        if self._mix is not None:
            images, targets = self._mix(images, targets)
        self._optimizer.zero_grad(set_to_none=True)
        # by the smallest share of all processes, which must make as many passes: each waits for the
        # others in synchronised batch norm
        parts = max(1, min(recipe.accumulate, batch.size // self.group.world // 2))
        # gradients are averaged over the processes once for all parts: with the last one
        unaveraged = getattr(self._parallel, "no_sync", nullcontext)
        split = (each.tensor_split(parts) for each in (images, targets, batch.labels))
        for number, (some, wanted, labels) in enumerate(zip(*split, strict=True), start=1):
            with unaveraged() if number < parts else nullcontext():
                self._backward(some, wanted, labels, batch.size)
        if recipe.clip_gradient is not None:
            from timm.utils import dispatch_clip_grad

            self._scaler.unscale_(self._optimizer)
            dispatch_clip_grad(self.network.parameters(), recipe.clip_gradient, mode="norm")
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def _backward(self, images: Tensor, targets: Tensor, labels: Tensor, batch: int) -> None:
        """Add the gradients of a part of a batch, and what the part adds to the totals.

        `batch` is the number of images in the whole batch, over all processes.
        """
        with mixed_precision(self.device, self.recipe.precision):
            logits = self._parallel(images)
        loss = self._criterion(logits.float(), targets)
        # the mean over the whole batch: torch averages gradients over the processes
        weight = len(images) * self.group.world / batch
        scaled = loss if weight == 1.0 else loss * weight
        self._scaler.scale(scaled).backward()
        self._totals.loss += loss.detach() * len(images)
        self._totals.correct += (logits.detach().argmax(1) == labels).sum()
        self._totals.seen += len(images)

    @contextmanager
    def _noise(self, epoch: int, step: int) -> Iterator[None]:
        """Seed the global generators, from which dropped paths and mixing draw, for one step."""
        recipe = self.recipe
        if not (recipe.drop_path or recipe.dropout or self._mix is not None):
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
        """Save if it is time to, and stop if asked to, in all processes together."""
        minutes = self.cadence.minutes
        due = minutes is not None and time.monotonic() - self._saved >= 60 * minutes
        due, stop = self.group.any([due, self.stop()], self.device)
        if due or stop:
            self._save(step)
        if stop:
            raise Interrupted

    def _share_statistics(self) -> None:
        """Give every process the mean of all processes' statistics of batch norm."""
        if self.group.world > 1:
            from timm.utils import distribute_bn

            for network in dict.fromkeys((self.network, self.kept)):  # often one and the same
                distribute_bn(network, self.group.world, reduce=True)

    def _held_out_accuracies(self) -> dict[str, float]:
        """Accuracy in percent over the held-out images of all processes, and the metric's."""
        classes, precision = len(self.feed.classes), self.recipe.precision
        held_out = self.feed.held_out()
        counts = count_correct(self.kept, held_out, self.device, precision, classes)
        right, seen = self.group.sum(counts)
        found = {"accuracy": 100.0 * int(right.sum()) / int(seen.sum())}
        if self.metric == "balanced_accuracy":
            there = seen > 0
            found[self.metric] = 100.0 * float((right[there] / seen[there]).mean())
        return found

    def _begin_totals(self) -> None:
        zero = torch.zeros((), device=self.device)
        self._totals = _Totals(zero, torch.zeros((), dtype=torch.int64, device=self.device))

    def _totals_of_all(self) -> tuple[float, int, int, float]:
        """Loss, correct answers and images, summed over all processes; seconds of this one."""
        totals = self._totals
        mine = [float(totals.loss), float(totals.correct), float(totals.seen)]
        sums = self.group.sum(torch.tensor(mine, dtype=torch.float64, device=self.device))
        loss, correct, seen = sums.tolist()
        return loss, int(correct), int(seen), totals.seconds


def _fell(means: list[Tensor]) -> bool:
    """Whether a loss fell between the halves of an epoch, beyond chance, given its mean over all
    steps so far after each step.
    """
    if len(means) < 4:
        return False
    steps = torch.arange(1, len(means) + 1)
    losses = (torch.stack(means).double().cpu() * steps).diff(prepend=torch.zeros(1))
    first, second = losses.tensor_split(2)
    error = (first.var() / len(first) + second.var() / len(second)).sqrt()
    return bool(first.mean() - second.mean() > FELL * error)


def _is_finite(network: nn.Module) -> bool:
    """Whether every weight is finite, since an epoch's last step shows in no loss of that epoch."""
    return bool(torch.stack([weight.isfinite().all() for weight in network.parameters()]).all())
