"""One final training, from its job to its result; it goes on where it was stopped or killed."""

import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from blockqnn.errors import SearchError
from blockqnn.network.weights import save_weights
from blockqnn.seeds import seed_for
from blockqnn.storage import DirectoryLock, write_json
from blockqnn.storage.lock import LOCK_WAIT
from blockqnn.training.checkpoint import Checkpoint
from blockqnn.training.devices import device_name, out_of_memory, resolve
from blockqnn.training.distributed import Group, join, leave
from blockqnn.training.final.job import Job, read_job
from blockqnn.training.final.result import commit, versions
from blockqnn.training.final.subject import Subject
from blockqnn.training.precision import resolve_precision
from blockqnn.training.trainer import NotFinite, Trainer

STOPPED = 75
"""Exit status of a training that was stopped: EX_TEMPFAIL, try again later."""


PROGRESS_SECONDS = 2.0


def train(
    directory: Path,
    devices: Sequence[str],
    threads: int | None,
    stop: threading.Event,
    meeting: Path | None = None,
) -> None:
    """Train the job in `directory` to its result; `meeting` as in `distributed.join`.

    Raises `UserError` for what a person has to mend, `Stopped`, and OSError.
    """
    job = read_job(directory)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    name = devices[local % len(devices)]
    device = torch.device("cuda", local) if name == "auto" and _one_of_many() else resolve(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    group = join(device, meeting)
    try:
        if (directory / "result.json").exists():
            return
        lock = DirectoryLock(directory, wait=LOCK_WAIT) if group.rank == 0 else None
        try:
            if lock is not None:
                for half in directory.glob("*.tmp"):  # of a kill, as large as the state
                    half.unlink(missing_ok=True)
            _train(job, directory, device, group, stop)
        finally:
            if lock is not None:
                lock.release()
    finally:
        leave(group)


def _one_of_many() -> bool:
    return "LOCAL_RANK" in os.environ and torch.cuda.is_available()


def _train(
    job: Job, directory: Path, device: torch.device, group: Group, stop: threading.Event
) -> None:
    begun = time.time()
    subject = Subject(job)
    subject.check(job, directory)
    recipe = job.plan.recipe
    seed = seed_for(job.seed, "final training", job.subject)
    network = subject.network(seed_for(seed, "weights"))
    macs = subject.macs(network)
    progress = _Progress(directory, recipe.epochs) if group.rank == 0 else None
    trainer = Trainer(
        network=network,
        recipe=recipe,
        feed=subject.feed(recipe, seed, device, group),
        seed=seed,
        device=device,
        checkpoint=Checkpoint(directory / "checkpoint", job.identity, keep_previous=True),
        best=Checkpoint(directory / "best", job.identity),
        group=group,
        cadence=job.plan.checkpoint,
        save_end=True,
        stop=stop.is_set,
    )
    if progress is not None:
        trainer.watch = lambda epoch, step: progress.update(trainer, epoch, step)
    outcome, reason = "trained", ""
    try:
        curve = trainer.run()
    except NotFinite as error:
        outcome, reason, curve = "diverged", str(error), error.curve
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise SearchError(
            f"{job.label} ran out of memory on {device_name(device)} with recipe.batch "
            f"{recipe.batch}: raise recipe.accumulate or lower the batch"
        ) from None
    finally:
        trainer.feed.close()
    if group.rank != 0:
        return
    if progress is not None:
        progress.write(trainer, recipe.epochs, 0)
    if outcome == "trained":
        trainer.kept.cpu()
        save_weights(trainer.kept, directory / "weights.safetensors", subject.metadata(job))
    result = {
        "version": 1,
        **job.facts(),
        "outcome": outcome,
        "reason": reason,
        "curve": curve,
        "accuracy": curve[-1].get("accuracy") if outcome == "trained" else None,
        "parameters": sum(p.numel() for p in network.parameters()),
        "macs": macs,
        "seconds": sum(entry["seconds"] for entry in curve),
        "begun": begun,
        "finished": time.time(),
        "device": device_name(device),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "devices": group.world,
        "precision": resolve_precision(device, recipe.precision),
        "data": subject.facts(),
        "network": job.plan.network.described() if job.block is not None else None,
        "recipe": asdict(recipe),
        "commit": commit(),
        "versions": versions(),
    }
    write_json(result, directory / "result.json")
    for name in ("checkpoint", "checkpoint.previous"):  # only now is nothing left to go on with
        (directory / name).unlink(missing_ok=True)


class _Progress:
    """progress.json: how far the training is, for whoever watches."""

    def __init__(self, directory: Path, epochs: int) -> None:
        self._path = directory / "progress.json"
        self._epochs = epochs
        self._written = 0.0
        self._epochs_done = -1

    def update(self, trainer: Trainer, epoch: int, step: int) -> None:
        """Write it, at most every few seconds, and when an epoch has ended."""
        now = time.monotonic()
        if now - self._written < PROGRESS_SECONDS and self._epochs_done == len(trainer.curve):
            return
        self._written, self._epochs_done = now, len(trainer.curve)
        self.write(trainer, epoch, step)

    def write(self, trainer: Trainer, epoch: int, step: int) -> None:
        """Not flushed to disk: it may be lost."""
        content = {
            "epoch": epoch,
            "epochs": self._epochs,
            "step": step,
            "steps": trainer.feed.steps(),
            "curve": trainer.curve,
            "time": time.time(),
        }
        temporary = self._path.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(content))
            temporary.replace(self._path)
        except OSError:  # a full disk: the checkpoint will say so
            temporary.unlink(missing_ok=True)
