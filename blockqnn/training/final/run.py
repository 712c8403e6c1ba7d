"""One final training, from its job to its result; it goes on where it was stopped or killed."""

import os
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch

from blockqnn.data.images import Images, open_images
from blockqnn.errors import SearchError
from blockqnn.network.weights import save_weights
from blockqnn.seeds import seed_for
from blockqnn.storage import DirectoryLock, write_json
from blockqnn.storage.lock import LOCK_WAIT
from blockqnn.training.checkpoint import Checkpoint
from blockqnn.training.devices import device_name, out_of_memory, resolve
from blockqnn.training.distributed import Group, join, leave
from blockqnn.training.final.job import Job, read_job
from blockqnn.training.final.result import ResultImages, TrainingResult, commit, versions
from blockqnn.training.final.subject import check_images, fresh_network, macs_of, weights_metadata
from blockqnn.training.precision import resolve_precision
from blockqnn.training.trainer import NotFinite, Trainer

STOPPED = 75
"""Exit status of a training that was stopped: EX_TEMPFAIL, try again later."""

PROGRESS_SECONDS = 2.0
"""Least seconds between two writings of progress.json in the middle of an epoch."""


def train(
    directory: Path,
    devices: Sequence[str],
    threads: int | None,
    stop: threading.Event,
    meeting: Path | None = None,
) -> None:
    """Train the job in `directory` to its result; `meeting` as in `distributed.join`.

    Raises `UserError` for what a person has to mend, `Interrupted`, and OSError.
    """
    job = read_job(directory)
    device = _device(devices)
    if threads is not None:
        torch.set_num_threads(threads)
    with ExitStack() as stack:
        group = join(device, meeting)
        stack.callback(leave, group)
        if (directory / "result.json").exists():
            return
        if group.rank == 0:
            stack.callback(DirectoryLock(directory, wait=LOCK_WAIT).release)
            for half in directory.glob("*.tmp"):  # left by a kill, as large as the state
                half.unlink(missing_ok=True)
        _train(job, directory, device, group, stop)


def _device(devices: Sequence[str]) -> torch.device:
    """The device of this process among those of all processes of the training."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    name = devices[local % len(devices)]
    one_of_many = "LOCAL_RANK" in os.environ and torch.cuda.is_available()
    device = torch.device("cuda", local) if name == "auto" and one_of_many else resolve(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def _train(
    job: Job, directory: Path, device: torch.device, group: Group, stop: threading.Event
) -> None:
    begun = time.time()
    everything = job.split == "everything"
    images = open_images(job.plan.data, job.plan.seed, everything)
    check_images(job, images.facts, directory)
    trainer = _trainer(job, directory, images, device, group)
    macs = macs_of(job, images.facts, trainer.network)
    trainer.stop = stop.is_set
    progress = _Progress(directory / "progress.json", trainer)
    if group.rank == 0:
        trainer.watch = progress.update
    reason = _run(trainer, job)
    if group.rank != 0:
        return
    progress.write(job.plan.recipe.epochs, 0)
    if not reason:
        kept, weights = trainer.kept.cpu(), directory / "weights.safetensors"
        save_weights(kept, weights, weights_metadata(job, images.facts))
    write_json(_result(job, images, trainer, reason, macs, begun), directory / "result.json")
    for name in ("checkpoint", "checkpoint.previous"):  # only now is nothing left to go on with
        (directory / name).unlink(missing_ok=True)


def _trainer(
    job: Job, directory: Path, images: Images, device: torch.device, group: Group
) -> Trainer:
    recipe = job.plan.recipe
    seed = seed_for(job.seed, "final training", job.subject)
    return Trainer(
        network=fresh_network(job, images.facts, seed_for(seed, "weights")),
        recipe=recipe,
        feed=images.feed(recipe, seed, device, group),
        seed=seed,
        device=device,
        checkpoint=Checkpoint(directory / "checkpoint", job.identity, keep_previous=True),
        best=Checkpoint(directory / "best", job.identity),
        group=group,
        cadence=job.plan.checkpoint,
        save_end=True,
    )


def _run(trainer: Trainer, job: Job) -> str:
    """Train to the end; returns why the training diverged, nothing when it did not."""
    try:
        trainer.run()
    except NotFinite as error:
        return str(error)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise SearchError(
            f"{job.label} ran out of memory on {device_name(trainer.device)} with recipe.batch "
            f"{trainer.recipe.batch}: raise recipe.accumulate or lower the batch"
        ) from None
    finally:
        trainer.feed.close()
    return ""


def _result(
    job: Job, images: Images, trainer: Trainer, reason: str, macs: int, begun: float
) -> TrainingResult:
    device, curve = trainer.device, trainer.curve
    return TrainingResult(
        version=1,
        label=job.label,
        block=job.block,
        timm=job.timm,
        split=job.split,
        seed=job.seed,
        identity=job.identity,
        outcome="diverged" if reason else "trained",
        reason=reason,
        curve=curve,
        accuracy=None if reason else curve[-1].get("accuracy"),
        parameters=sum(p.numel() for p in trainer.network.parameters()),
        macs=macs,
        seconds=sum(entry["seconds"] for entry in curve),
        begun=begun,
        finished=time.time(),
        device=device_name(device),
        threads=torch.get_num_threads() if device.type == "cpu" else None,
        devices=trainer.group.world,
        precision=resolve_precision(device, trainer.recipe.precision),
        data=cast(ResultImages, {"label": job.data, **asdict(images.facts)}),
        network=job.plan.network.described() if job.block is not None else None,
        matched=job.matched,
        recipe=asdict(trainer.recipe),
        commit=commit(),
        versions=versions(),
    )


class _Progress:
    """progress.json: how far the training is, for whoever watches."""

    def __init__(self, path: Path, trainer: Trainer) -> None:
        self._path = path
        self._trainer = trainer
        self._written = 0.0
        self._epochs_done = -1

    def update(self, epoch: int, step: int) -> None:
        """Write the file when an epoch has ended, else every few seconds at most."""
        now, epochs_done = time.monotonic(), len(self._trainer.curve)
        if now - self._written < PROGRESS_SECONDS and self._epochs_done == epochs_done:
            return
        self._written, self._epochs_done = now, epochs_done
        self.write(epoch, step)

    def write(self, epoch: int, step: int) -> None:
        """Write the file, unless the disk is full."""
        trainer = self._trainer
        content = {
            "epoch": epoch,
            "epochs": trainer.recipe.epochs,
            "step": step,
            "steps": trainer.feed.steps(),
            "curve": trainer.curve,
            "time": time.time(),
        }
        with suppress(OSError):  # the next checkpoint will say that the disk is full
            write_json(content, self._path)
