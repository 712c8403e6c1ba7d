"""Final trainings as processes: `blockqnn.training.final`, or torchrun with several of these.

A process knows only `blockqnn` and what its directory says. It holds the read end of a pipe as its
leash: when this process lets go of it, in order or because it was killed, the training saves its
state and ends.
"""

import contextlib
import os
import queue
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from blockqnn.errors import SearchError, SettingsError
from blockqnn.settings import TrainingWorkers
from blockqnn.training.devices import resolve, usable_cores, visible_devices
from blockqnn.training.final.result import TrainingResult, read_result
from blockqnn.training.final.run import STOPPED
from blockqnn.training.keep_memory import KEEP_MEMORY

STOP_TIMEOUT = 300.0
"""Seconds that a training may take to end its step and save its state: networks may be large."""

LOG = "training.log"
"""File of a training's directory that has all that its processes say."""

MEETING = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Environment that keeps torchrun from opening a port, where anybody could reach it."""

Result = TrainingResult


class TrainingDied(RuntimeError):
    """A training's process was lost; the training goes on from its checkpoint when run again."""


class TrainingProcesses:
    """Runs final trainings, `slots` at a time, each on devices of its own."""

    def __init__(self, workers: TrainingWorkers) -> None:
        """Deal the devices out. Raises `SettingsError` for devices that are not there."""
        devices = workers.devices or visible_devices()
        kinds = {resolve(device).type for device in devices}
        count = workers.processes
        if kinds != {"cpu"} and len(devices) < count:
            raise SettingsError(
                f"workers.processes is {count}: a training needs as many devices, and there are "
                f"{', '.join(devices)}"
            )
        self.slots = workers.parallel or max(1, len(devices) // count)
        self._threads = workers.threads or max(1, usable_cores() // (self.slots * count))
        self._processes = count
        self._memory = KEEP_MEMORY if kinds == {"cpu"} else {}
        self._running: dict[Path, subprocess.Popen[bytes]] = {}
        self._change = threading.Lock()
        self._closed = False
        self._idle: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        groups = max(1, len(devices) // count)
        for slot in range(self.slots):
            first = slot % groups * count
            self._idle.put(list(devices[first : first + count]))

    def train(self, directory: Path) -> Result:
        """Train the job in `directory` to its result, waiting for free devices first.

        Called from several threads. Raises `TrainingDied` when the process was lost, `SearchError`
        when the training was stopped, and the process's own sentence as `UserError`.
        """
        devices = self._idle.get()
        try:
            return self._train(directory, devices)
        finally:
            self._idle.put(devices)

    def close(self) -> None:
        """Let go of all trainings, and return when they have saved their state and ended."""
        with self._change:
            self._closed = True
            running = list(self._running.values())
        for process in running:
            _release(process)
        give_up = time.monotonic() + STOP_TIMEOUT
        for process in running:
            try:
                process.wait(max(0.0, give_up - time.monotonic()))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def command(
        self, directory: Path, devices: Sequence[str], meeting: Path | str | None = None
    ) -> list[str]:
        """The command that trains the job in `directory`.

        Several processes meet in files of the empty directory `meeting`. torchrun's option
        `--standalone` would open a port to everybody, and unpickle what comes in.
        """
        module = ["-m", "blockqnn.training.final", str(directory.resolve())]
        options = ["--device", *devices, "--threads", str(self._threads), "--leash"]
        if meeting is not None:
            processes = ["--nproc-per-node", str(self._processes), "--rdzv-backend", "c10d"]
            processes += ["--rdzv-endpoint", f"{meeting}/torchrun"]
            processes += ["--rdzv-conf", "store_type=file"]
            module = ["-m", "torch.distributed.run", *processes, *module]
            options += ["--meeting", f"{meeting}/processes"]
        return [sys.executable, *module, *options]

    def _train(self, directory: Path, devices: Sequence[str]) -> Result:
        path = directory / LOG
        before = path.stat().st_size if path.exists() else 0
        with self._meeting(directory) as meeting:
            process = self._start(directory, devices, path, meeting)
            try:
                status = process.wait()
            finally:
                with self._change:
                    del self._running[directory]
                _release(process)
        if (result := read_result(directory)) is not None:
            return result
        if self._closed or status == STOPPED:
            raise SearchError(
                f"training {directory.name} was stopped; its state is saved, and the same command "
                "continues"
            )
        if said := _sentence(path, before):
            raise (SettingsError if status == 2 else SearchError)(said)
        raise TrainingDied(f"its process ended with status {status}; its last words are in {path}")

    def _meeting(self, directory: Path) -> AbstractContextManager[str | None]:
        """Makes the directory in which the processes of a training meet; None for one process."""
        if self._processes == 1:
            return nullcontext()
        prefix = "blockqnn-meeting-"
        try:
            return tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
        except OSError as error:
            raise _no_start(directory, error) from None

    def _start(
        self, directory: Path, devices: Sequence[str], path: Path, meeting: str | None
    ) -> subprocess.Popen[bytes]:
        threads = str(self._threads)
        environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **self._memory}
        if meeting is not None:
            environment |= MEETING
        with self._change:
            if self._closed:
                raise SearchError("the trainings are closed")
            try:
                with path.open("ab") as log:
                    process = subprocess.Popen(
                        self.command(directory, devices, meeting),
                        stdin=subprocess.PIPE,
                        stdout=log,
                        stderr=log,
                        env={**os.environ, **environment},
                        start_new_session=True,  # Ctrl-C is for the flow, which lets go of it
                    )
            except OSError as error:  # a full disk, no more processes
                raise _no_start(directory, error) from None
            self._running[directory] = process
        return process


def torchrun_command(directory: Path) -> str:
    """The command that trains a prepared job on several machines, to be given on each of them."""
    return (
        "torchrun --nnodes N --nproc-per-node GPUS --rdzv-backend c10d --rdzv-endpoint HOST:29400 "
        f"-m blockqnn.training.final {shlex.quote(str(directory))}"
    )


def _no_start(directory: Path, error: OSError) -> SearchError:
    return SearchError(
        f"cannot start training {directory.name} ({error.strerror}): free some space, then give "
        "the same command again"
    )


def _release(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()


def _sentence(log: Path, start: int) -> str:
    """The first sentence for the user in a log from byte `start` on; empty for none."""
    try:
        lines = log.read_bytes()[start:].decode(errors="replace").splitlines()
    except OSError:
        return ""
    said = (line.removeprefix("blockqnn: ") for line in lines if line.startswith("blockqnn: "))
    return next(said, "")
