"""Where candidates are trained: in this process, or in long-lived processes of their own.

A worker knows only `blockqnn` (see `blockqnn.worker` for the lines it speaks). A Prefect task waits
for it in a thread. A process that crashes, is killed or hangs takes one attempt at one candidate
with it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Protocol

import torch

from blockqnn.config import InlineSettings, ProcessSettings, Settings
from blockqnn.data import load
from blockqnn.devices import resolve, visible_devices
from blockqnn.errors import SearchError, UserError
from blockqnn.outcome import Outcome
from blockqnn.search import candidate_directory
from blockqnn.space import Block
from blockqnn.worker import train_and_keep

log = logging.getLogger(__name__)

START_TIMEOUT = 600.0
"""Seconds a worker may take to import torch and load its data."""

KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": str(256 * 2**20),
}
"""Makes glibc keep freed memory: giving it back and taking it again costs a CPU half of its
training time at large batches (benchmarks/training_speed.py).
"""


class WorkerDied(RuntimeError):
    """A worker was lost with a candidate in its hands: the candidate is still pending."""


class Workers(Protocol):
    """Trains candidates, `slots` at a time."""

    slots: int

    def train(self, number: int, code: str) -> Outcome:
        """Train a candidate, waiting for a free worker. Called from several threads.

        Raises `WorkerDied` when the attempt was lost, and `SearchError` for what the user has to
        mend.
        """

    def close(self) -> None:
        """Let the workers go, in the middle of a training too."""


def open_workers(settings: Settings, directory: Path) -> Workers:
    """The workers that the settings name, for the search in `directory`."""
    if isinstance(settings.workers, ProcessSettings):
        return ProcessWorkers(settings, settings.workers, directory)
    return InlineWorker(settings, settings.workers, directory)


class InlineWorker:
    """Trains in the calling thread."""

    slots = 1

    def __init__(self, settings: Settings, workers: InlineSettings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self._device = resolve(workers.device)
        torch.set_num_threads(workers.threads)
        self._data = load(settings.data, settings.seed).to(self._device)

    def train(self, number: int, code: str) -> Outcome:
        """Train a candidate here and now."""
        block = Block.parse(code, self._settings.space.max_index)
        directory = candidate_directory(self._directory, number)
        try:
            return train_and_keep(block, self._settings, self._data, directory, self._device)
        except UserError:
            raise
        except Exception as error:  # what would have killed a process
            raise WorkerDied(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Nothing to let go of."""


class ProcessWorkers:
    """Processes spawned once each, when first needed, and again after a death."""

    def __init__(self, settings: Settings, workers: ProcessSettings, directory: Path) -> None:
        devices = workers.devices or visible_devices()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        on_cpu = devices == ("cpu",)
        self.slots = workers.count or (
            max(1, (cores or 1) // workers.threads) if on_cpu else len(devices)
        )
        self._timeout = workers.timeout
        (directory / "workers").mkdir(exist_ok=True)
        self._slots = [
            _Slot(
                {
                    "settings": settings.to_dict(),
                    "directory": str(directory.resolve()),
                    "device": devices[number % len(devices)],
                    "threads": workers.threads,
                    "share": self.slots,
                },
                directory / "workers" / f"{number}.log",
            )
            for number in range(self.slots)
        ]
        self._idle: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        for slot in self._slots:
            self._idle.put(slot)

    def train(self, number: int, code: str) -> Outcome:
        """Train a candidate in the next free process."""
        slot = self._idle.get()
        try:
            answer = slot.ask({"number": number, "code": code}, self._timeout)
        finally:
            self._idle.put(slot)
        return Outcome.from_dict(answer["outcome"])

    def close(self) -> None:
        """Kill the processes; a training in progress goes on from its checkpoint next time."""
        for slot in self._slots:
            slot.close()


class _Slot:
    """A place for one worker process."""

    def __init__(self, begin: dict[str, Any], log: Path) -> None:
        self._begin = begin
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._closed = False

    def ask(self, task: dict[str, Any], timeout: float) -> dict[str, Any]:
        """The worker's answer to one task; starts a worker if there is none."""
        try:
            if self._process is None or self._process.poll() is not None:
                self._stop()
                self._start()
            self._send(task)
            return self._answer(timeout)
        except (BrokenPipeError, queue.Empty) as error:
            late = isinstance(error, queue.Empty)
            raise self._lost("ran out of time" if late else "was gone") from None

    def close(self) -> None:
        """Kill the process for good."""
        self._closed = True
        self._stop()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):  # of a line it never read
                        pipe.close()

    def _start(self) -> None:
        if self._closed:
            raise SearchError("the workers are closed")
        threads = str(self._begin["threads"])
        memory = KEEP_MEMORY if self._begin["device"] == "cpu" else {}
        environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **memory}
        try:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "blockqnn.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env={**os.environ, **environment},
                    start_new_session=True,  # Ctrl-C is for the flow; a worker ends with its input
                )
        except OSError as error:  # a full disk, no more processes: not the candidate's doing
            raise SearchError(
                f"cannot start a worker, its log being {self._log}: {error}"
            ) from None
        self._answers = queue.SimpleQueue()
        reader = threading.Thread(target=_read, args=(self._process, self._answers), daemon=True)
        reader.start()
        self._send(self._begin)
        self._answer(START_TIMEOUT)

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def _answer(self, timeout: float) -> dict[str, Any]:
        line = self._answers.get(timeout=timeout)
        if not line.endswith("\n"):  # no answer, or half of one
            raise self._lost("died")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            self._stop()
            raise SearchError(answer["error"])
        return answer

    def _lost(self, how: str) -> Exception:
        """What to raise when there is no answer; the next task gets a new process."""
        process = self._process
        self._stop()
        if self._closed or process is None:
            return SearchError("the workers are closed")
        status = process.returncode
        message = f"a worker {how} (exit status {status}); its last words are in {self._log}"
        log.warning("%s; its candidate is tried again", message)
        return WorkerDied(message)


def _read(process: subprocess.Popen[str], answers: queue.SimpleQueue[str]) -> None:
    """Pass answers on; an empty one when the process is gone."""
    assert process.stdout is not None
    try:
        for line in process.stdout:
            answers.put(line)
    except ValueError:  # the pipe was closed under the reader: the slot was stopped
        pass
    answers.put("")
