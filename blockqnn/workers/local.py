"""Where candidates are trained: in this process, in long-lived processes of their own, or by Ray.

A worker knows only `blockqnn` (see `blockqnn.workers.process` for the lines it speaks). A Prefect
task waits for it in a thread. A process that crashes, is killed or hangs takes one attempt at one
candidate with it.
"""

import logging
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blockqnn.errors import SearchError
from blockqnn.search.outcome import Outcome
from blockqnn.settings import LocalSettings, Settings
from blockqnn.training.devices import usable_cores, visible_devices
from blockqnn.workers.lines import LineProcess, Message
from blockqnn.workers.protocol import KEEP_MEMORY, START_TIMEOUT, WorkerDied

log = logging.getLogger(__name__)


class LocalWorkers:
    """Processes spawned once each, when first needed, and again after a death."""

    def __init__(self, settings: Settings, workers: LocalSettings, directory: Path) -> None:
        devices = workers.devices or visible_devices()
        on_cpu = devices == ("cpu",)
        self.slots = workers.count or (
            max(1, usable_cores() // workers.threads) if on_cpu else len(devices)
        )
        self._timeout = workers.timeout
        (directory / "workers").mkdir(exist_ok=True)
        shared = {device: _Device() for device in devices}
        for number in range(self.slots):
            device = devices[number % len(devices)]
            begin = {
                "settings": settings.to_dict(),
                "directory": str(directory.resolve()),
                "device": device,
                "threads": workers.threads,
                "share": self.slots,
            }
            log = directory / "workers" / f"{number}.log"
            shared[device].slots.append(_Slot(begin, log, shared[device]))
        self._slots = [slot for device in shared.values() for slot in device.slots]
        self._idle: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        for slot in self._slots:
            self._idle.put(slot)

    def train(
        self, number: int, code: str, alone: bool = False, rule: Message | None = None
    ) -> Outcome:
        """Train a candidate in the next free process."""
        slot = self._idle.get()
        try:
            task = {"number": number, "code": code, "rule": rule}
            if not alone:
                outcome = slot.ask(task, self._timeout)
                if not outcome.out_of_memory:
                    return outcome
            return slot.ask_alone(task, self._timeout)
        finally:
            self._idle.put(slot)

    def forget(self, number: int) -> None:
        """Nothing is kept elsewhere."""

    def close(self) -> None:
        """Kill the processes; a training in progress goes on from its checkpoint next time."""
        for slot in self._slots:
            slot.close()


class _Device:
    """What slots of one device share: many at a time, or one alone."""

    def __init__(self) -> None:
        self.slots: list[_Slot] = []
        self._changed = threading.Condition()
        self._running = 0
        self._alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Beside others."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """When those that run now have ended, and before any other begins."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = True
            self._changed.wait_for(lambda: self._running == 0)
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


class _Slot:
    """A place for one worker process."""

    def __init__(self, begin: Message, log: Path, device: _Device) -> None:
        self._begin = begin
        self._log = log
        self._device = device
        self._process: LineProcess | None = None
        self._answers: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._closed = False

    def ask(self, task: Message, timeout: float) -> Outcome:
        """The outcome of one task beside others; starts a worker if there is none."""
        if len(self._device.slots) == 1:
            return self._ask({**task, "alone": True}, timeout)
        with self._device.shared():
            return self._ask({**task, "alone": False}, timeout)

    def ask_alone(self, task: Message, timeout: float) -> Outcome:
        """The same with all of the device's memory: other workers give theirs back."""
        with self._device.alone():
            for slot in self._device.slots:
                slot.stop()
            try:
                return self._ask({**task, "alone": True}, timeout, share=1)
            finally:
                self.stop()  # the next one gets its usual share

    def close(self) -> None:
        """Kill the process for good."""
        self._closed = True
        self.stop()

    def stop(self) -> None:
        """Kill the process; the next task gets a new one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def _ask(self, task: Message, timeout: float, share: int | None = None) -> Outcome:
        if self._process is None or not self._process.running:
            self.stop()
            self._start(share or self._begin["share"])
        assert self._process is not None
        self._process.send(task)
        return Outcome.from_dict(self._answer(timeout)["outcome"])

    def _start(self, share: int) -> None:
        if self._closed:
            raise SearchError("the workers are closed")
        threads = str(self._begin["threads"])
        memory = KEEP_MEMORY if self._begin["device"] == "cpu" else {}
        answers: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._answers = answers
        self._process = LineProcess(
            "blockqnn.workers.process",
            {**self._begin, "share": share},
            log=self._log,
            environment={"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **memory},
            receive=answers.put,
        )
        if self._closed:  # meanwhile
            self.stop()
            raise SearchError("the workers are closed")
        self._answer(START_TIMEOUT)

    def _answer(self, timeout: float) -> Message:
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
        """What to raise when there is no answer; the next task gets a new process."""
        process = self._process
        self.stop()
        if self._closed or process is None:
            return SearchError("the workers are closed")
        message = (
            f"a worker {how} (exit status {process.status}); its last words are in {self._log}"
        )
        log.warning("%s; its candidate is tried again", message)
        return WorkerDied(message)
