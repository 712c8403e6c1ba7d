"""Candidates trained in long-lived processes of this machine, `blockqnn.workers.process` each.

A thread of the search waits for each of them. A process that crashes, is killed or hangs takes one
attempt at one candidate with it.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from blockqnn.errors import SearchError
from blockqnn.search.outcome import Outcome
from blockqnn.settings import LocalSettings, Settings
from blockqnn.training.devices import full_name, usable_cores, visible_devices
from blockqnn.training.keep_memory import KEEP_MEMORY
from blockqnn.workers.lines import LineProcess
from blockqnn.workers.protocol import (
    CLOSED,
    START_TIMEOUT,
    Answer,
    Begin,
    CandidateTask,
    WorkerDied,
    Workers,
)

log = logging.getLogger(__name__)


class LocalWorkers(Workers):
    """Processes that are started when first needed, and again after a death."""

    slots = 1

    def __init__(self, settings: Settings, workers: LocalSettings, directory: Path) -> None:
        devices = tuple(map(full_name, workers.devices)) or visible_devices()
        on_cpu = devices == ("cpu",)
        fitting = max(1, usable_cores() // workers.threads) if on_cpu else len(devices)
        self.slots = workers.count or fitting
        (directory / "workers").mkdir(exist_ok=True)
        shared = {device: _Device() for device in devices}
        for number in range(self.slots):
            name = devices[number % len(devices)]
            begin: Begin = {
                "settings": settings.to_dict(),
                "directory": str(directory.resolve()),
                "device": name,
                "threads": workers.threads,
                "share": self.slots,
            }
            log = directory / "workers" / f"{number}.log"
            shared[name].slots.append(_Slot(begin, log, shared[name], workers.timeout))
        self._slots = [slot for device in shared.values() for slot in device.slots]
        self._idle: SimpleQueue[_Slot] = SimpleQueue()
        for slot in self._slots:
            self._idle.put(slot)

    def train(self, task: CandidateTask) -> Outcome:
        """Train a candidate in the next free process."""
        slot = self._idle.get()
        try:
            outcome = slot.train(task)
            if outcome.out_of_memory and not task["alone"]:
                outcome = slot.train({**task, "alone": True})
            return outcome
        finally:
            self._idle.put(slot)

    def close(self) -> None:
        """Kill the processes; a training in progress goes on from its checkpoint next time."""
        for slot in self._slots:
            slot.close()


class _Device:
    """The slots of one device, and who may train on it: many candidates, or one alone."""

    def __init__(self) -> None:
        self.slots: list[_Slot] = []
        self._changed = threading.Condition()
        self._running = 0
        self._taken = False

    @contextmanager
    def use(self, *, alone: bool) -> Iterator[None]:
        """Enter to train. A candidate to be `alone` waits for the others, and holds up new ones."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken)
            self._taken = alone
            if alone:
                self._changed.wait_for(lambda: self._running == 0)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                if alone:
                    self._taken = False
                self._changed.notify_all()


class _Slot:
    """A place for one worker process."""

    def __init__(self, begin: Begin, log: Path, device: _Device, timeout: float) -> None:
        self._begin = begin
        self._log = log
        self._device = device
        self._timeout = timeout
        self._process: LineProcess | None = None
        self._answers: SimpleQueue[Answer | None] = SimpleQueue()
        self._closed = False

    def train(self, task: CandidateTask) -> Outcome:
        """Train a candidate; one `alone` on its device ends the processes of the other slots."""
        slots = self._device.slots
        with self._device.use(alone=task["alone"]):
            if not task["alone"]:
                return self._ask({**task, "alone": len(slots) == 1}, self._begin)
            for slot in slots:
                slot.stop()
            try:
                return self._ask(task, {**self._begin, "share": 1})
            finally:
                self.stop()  # the next process gets its usual share

    def close(self) -> None:
        """End the process for good."""
        self._closed = True
        self.stop()

    def stop(self) -> None:
        """Kill the process; the next candidate gets a new one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def _ask(self, task: CandidateTask, begin: Begin) -> Outcome:
        process = self._process
        if process is None or process.status is not None:
            self.stop()
            process = self._start(begin)
        process.send(task)
        return Outcome.from_dict(self._answer(self._timeout)["outcome"])

    def _start(self, begin: Begin) -> LineProcess:
        if self._closed:
            raise SearchError(CLOSED)
        threads = str(begin["threads"])
        memory = KEEP_MEMORY if begin["device"] == "cpu" else {}
        self._answers = SimpleQueue()
        self._process = process = LineProcess(
            "blockqnn.workers.process",
            begin,
            log=self._log,
            environment={"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **memory},
            receive=self._answers.put,
        )
        if self._closed:  # meanwhile
            self.stop()
            raise SearchError(CLOSED)
        self._answer(START_TIMEOUT)
        return process

    def _answer(self, timeout: float) -> Answer:
        try:
            answer = self._answers.get(timeout=timeout)
        except queue.Empty:
            raise self._lost("ran out of time") from None
        if answer is None:
            raise self._lost("died")
        if "lost" in answer:
            raise WorkerDied(answer["lost"])
        if "error" in answer:
            self.stop()
            raise SearchError(answer["error"])
        return answer

    def _lost(self, how: str) -> Exception:
        """The error to raise when there is no answer; the next candidate gets a new process."""
        process = self._process
        self.stop()
        if self._closed or process is None:
            return SearchError(CLOSED)
        message = f"a worker {how} (exit status {process.status}); "
        message += f"its last words are in {self._log}"
        log.warning("%s; its candidate is tried again", message)
        return WorkerDied(message)
