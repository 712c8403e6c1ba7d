"""Candidates trained by Ray: on every GPU of this machine, or of a cluster.

A Prefect task waits in a thread for its candidate; between it and Ray stands the gateway
(`blockqnn.workers.ray_gateway`), a process that dies when the cluster's head does, and is started
again. A node or a cluster that is lost costs no attempt: whatever was in training there is asked
for again.
"""

from __future__ import annotations

import importlib.util
import logging
import queue
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blockqnn.errors import SearchError, SettingsError
from blockqnn.search.candidate_files import candidate_directory, candidate_url
from blockqnn.search.outcome import Outcome
from blockqnn.settings import RaySettings, Settings
from blockqnn.storage.urls import is_url, remove_url, write_url
from blockqnn.workers.lines import LineProcess, Message
from blockqnn.workers.protocol import START_TIMEOUT, WorkerDied

log = logging.getLogger(__name__)

AGAIN = 2.0
"""Seconds before a candidate of a lost node is asked for again."""

LEAVE = 20.0
"""Seconds that the gateway may take to end the Ray of this machine and remove its files."""

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Makes a Ray of one machine listen on 127.0.0.1 alone, which is its way on those systems."""


class RayWorkers:
    """As many candidates in training as the cluster has room for."""

    def __init__(self, settings: Settings, workers: RaySettings, directory: Path) -> None:
        """Connect; raises `SettingsError` without Ray, `SearchError` when no cluster answers."""
        if importlib.util.find_spec("ray") is None:
            raise SettingsError(
                "workers.kind is 'ray', which is not installed: pip install 'blockqnn[cluster]'"
            )
        place = workers.checkpoints
        if place is None:
            place = str(directory.resolve())
            self._elsewhere = None
        else:
            place = f"{place.rstrip('/')}/{directory.name}"
            self._elsewhere = place if is_url(place) else str(Path(place).resolve())
            place = self._elsewhere
            check_place(workers.checkpoints or "", place)
        self._address = workers.address
        self._patience = workers.patience
        # sockets in it need a short path, so it cannot be in the search's directory
        own = workers.address is None
        self._temporary = tempfile.mkdtemp(prefix="blockqnn-ray-") if own else None
        self._begin = {
            "settings": settings.to_dict(),
            "place": place,
            "address": workers.address,
            "temporary": self._temporary,
        }
        (directory / "workers").mkdir(exist_ok=True)
        self._log = directory / "workers" / "ray.log"
        self._lock = threading.Lock()
        self._closed = False
        self._fruitless = 0
        self._cleaner = ThreadPoolExecutor(1)
        try:
            self._gateway = self._start()
        except BaseException:
            self.close()
            raise

    @property
    def slots(self) -> int:
        """What the cluster has room for now, or the setting; one at least."""
        return max(1, self._gateway.slots)

    def train(
        self, number: int, code: str, alone: bool = False, rule: Message | None = None
    ) -> Outcome:
        """Train a candidate wherever there is room."""
        while True:
            gateway = self._running()
            answer = gateway.ask({"number": number, "code": code, "alone": alone, "rule": rule})
            if "outcome" in answer:
                self._fruitless = 0
                outcome = Outcome.from_dict(answer["outcome"])
                if not outcome.out_of_memory or alone:
                    return outcome
                alone = True
            elif "error" in answer:
                raise SearchError(answer["error"])
            elif self._closed:
                raise SearchError("the workers are closed")
            elif answer["blame"]:
                raise WorkerDied(answer["lost"])
            else:
                log.warning("candidate %s is tried again: %s", number, answer["lost"])
                time.sleep(AGAIN)

    def forget(self, number: int) -> None:
        """Remove the work on a candidate from where `workers.checkpoints` keeps it."""
        if self._elsewhere is None:
            return
        if is_url(self._elsewhere):
            self._cleaner.submit(_remove, candidate_url(self._elsewhere, number))
        else:
            directory = candidate_directory(Path(self._elsewhere), number)
            shutil.rmtree(directory, ignore_errors=True)

    def close(self) -> None:
        """Leave the cluster, or end the Ray of this machine; trainings go on next time."""
        self._closed = True
        if hasattr(self, "_gateway"):
            self._gateway.end()
        self._cleaner.shutdown()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _running(self) -> _Gateway:
        """The gateway, a new one when it has gone with the cluster's head."""
        with self._lock:
            if self._closed:
                raise SearchError("the workers are closed")
            if self._gateway.running:
                return self._gateway
            self._fruitless += 1
            if self._fruitless > 10:
                raise SearchError(
                    f"Ray ends again and again before a candidate is trained; see {self._log}"
                )
            log.warning("Ray is gone (see %s); connecting again", self._log)
            give_up = time.monotonic() + self._patience
            while True:
                try:
                    self._gateway = self._start()
                    return self._gateway
                except Unreachable as error:
                    if time.monotonic() > give_up:
                        raise SearchError(
                            f"{error}; nothing is lost: start the same search again"
                        ) from None
                time.sleep(AGAIN)

    def _start(self) -> _Gateway:
        gateway = _Gateway(self._begin, self._log, LOOPBACK if self._address is None else {})
        try:
            gateway.wait(self._address)
        except BaseException:
            gateway.end()
            raise
        return gateway


class Unreachable(SearchError):
    """No Ray answers."""


class _Gateway:
    """The gateway's process and the threads that wait for its answers."""

    def __init__(self, begin: Message, log: Path, environment: dict[str, str]) -> None:
        self.slots = 0
        self._log = log
        self._ready = threading.Event()
        self._end: Message | None = None
        self._lock = threading.Lock()
        self._waiting: dict[int, queue.SimpleQueue[Message]] = {}
        self._process = LineProcess(
            "blockqnn.workers.ray_gateway",
            begin,
            log=log,
            environment={**ENVIRONMENT, **environment},
            receive=self._receive,
        )

    @property
    def running(self) -> bool:
        """Whether it takes candidates."""
        return self._end is None and self._process.running

    def wait(self, address: str | None) -> None:
        """Return when Ray has told its room; raises `Unreachable`, `SearchError` otherwise."""
        self._ready.wait(START_TIMEOUT)
        if self.running and self._ready.is_set():
            return
        end = self._end or {}
        if "error" in end:
            raise SearchError(end["error"])
        why = end.get("unreachable", f"see {self._log}")
        if address is None:
            raise Unreachable(f"Ray does not start on this machine ({why})")
        raise Unreachable(
            f"workers.address is {address!r}, where no Ray answers ({why}): start one there "
            "(`ray start --head`), or give null for this machine alone"
        )

    def ask(self, task: Message) -> Message:
        """A candidate's answer; a lost one when the process goes before it."""
        answers: queue.SimpleQueue[Message] = queue.SimpleQueue()
        with self._lock:
            if self._end is not None:
                return self._end
            self._waiting[task["number"]] = answers
        self._process.send(task)
        return answers.get()

    def end(self) -> None:
        """End it, and with it the Ray of this machine if that is its own."""
        self._process.end(LEAVE)

    def _receive(self, message: Message | None) -> None:
        if message is not None and "slots" in message:
            self.slots = message["slots"]
            self._ready.set()
        elif message is not None and "warning" in message:
            log.warning(message["warning"])
        elif message is not None and "number" in message:
            with self._lock:
                waiting = self._waiting.pop(message["number"])
            waiting.put(message)
        else:  # its end, or its last words
            with self._lock:
                last = {"lost": "Ray is gone", "blame": False, **(message or {})}
                self._end = self._end or last
                waiting_all = list(self._waiting.values())
                self._waiting.clear()
            for waiting in waiting_all:
                waiting.put(self._end)
            self._ready.set()


def check_place(setting: str, place: str) -> None:
    """Refuse a place for checkpoints that takes none: nodes would go on without, unseen."""
    try:
        if is_url(place):
            write_url(f"{place}/writable", b"")
            remove_url(f"{place}/writable")
        else:
            Path(place).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
    except Exception as error:  # each store has its own
        raise SettingsError(
            f"workers.checkpoints is {setting!r}, where nothing can be written "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}): give a directory "
            "that every node sees, or a URL whose store and credentials are there"
        ) from None


def _remove(url: str) -> None:
    try:
        remove_url(url)
    except Exception as error:  # each store has its own; a small file stays
        log.warning("%s is not removed: %s", url, error)
