"""Candidates trained by Ray: on every GPU of this machine, or of a cluster.

A thread of the search waits for each candidate; between it and Ray stands the gateway
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
from typing import Any

from blockqnn.errors import SearchError, SettingsError
from blockqnn.search.candidate_files import candidate_directory, candidate_url
from blockqnn.search.outcome import Outcome
from blockqnn.settings import RaySettings, Settings
from blockqnn.storage.urls import is_url, remove_url, write_url
from blockqnn.workers.lines import LineProcess
from blockqnn.workers.protocol import (
    CLOSED,
    START_TIMEOUT,
    Answer,
    CandidateTask,
    GatewayBegin,
    WorkerDied,
    Workers,
)

log = logging.getLogger(__name__)

AGAIN = 2.0
"""Seconds to wait before a candidate whose node was lost is asked for again."""

LEAVE = 20.0
"""Seconds that the gateway may take to end the Ray of this machine and remove its files."""

ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Environment of every gateway: no usage statistics, and tasks without a GPU see all GPUs."""

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Environment that makes a Ray of one machine listen on 127.0.0.1 alone, on every system."""


class RayWorkers(Workers):
    """Trains as many candidates at a time as the cluster has room for."""

    def __init__(self, settings: Settings, workers: RaySettings, directory: Path) -> None:
        """Connect. Raises `SettingsError` without Ray, `SearchError` when no cluster answers."""
        if importlib.util.find_spec("ray") is None:
            raise SettingsError(
                "workers.kind is 'ray', which is not installed: pip install 'blockqnn[cluster]'"
            )
        place, self._elsewhere = str(directory.resolve()), workers.checkpoints is not None
        if workers.checkpoints is not None:
            place = f"{workers.checkpoints.rstrip('/')}/{directory.name}"
            place = place if is_url(place) else str(Path(place).resolve())
            check_place(workers.checkpoints, place)
        self._patience = workers.patience
        # sockets in it need a short path, so it cannot be in the search's directory
        own = workers.address is None
        self._begin: GatewayBegin = {
            "settings": settings.to_dict(),
            "place": place,
            "address": workers.address,
            "temporary": tempfile.mkdtemp(prefix="blockqnn-ray-") if own else None,
        }
        (directory / "workers").mkdir(exist_ok=True)
        self._log = directory / "workers" / "ray.log"
        self._lock = threading.Lock()
        self._closed = False
        self._fruitless = 0
        self._cleaner = ThreadPoolExecutor(1)
        try:
            self._gateway = _Gateway(self._begin, self._log)
        except BaseException:
            self.close()
            raise

    @property
    def slots(self) -> int:
        """Candidates that the cluster has room for now, or `workers.count`; at least one."""
        return max(1, self._gateway.slots)

    def train(self, task: CandidateTask) -> Outcome:
        """Train a candidate on whichever node has room."""
        while True:
            gateway = self._running()
            answer = gateway.ask(task)
            if "outcome" in answer:
                self._fruitless = 0
                outcome = Outcome.from_dict(answer["outcome"])
                if not outcome.out_of_memory or task["alone"]:
                    return outcome
                task = {**task, "alone": True}
            elif "error" in answer:
                raise SearchError(answer["error"])
            elif self._closed:
                raise SearchError(CLOSED)
            elif answer["blame"]:
                raise WorkerDied(answer["lost"])
            else:
                log.warning("candidate %s is tried again: %s", task["number"], answer["lost"])
                time.sleep(AGAIN)

    def forget(self, number: int) -> None:
        """Remove the work on a candidate from where `workers.checkpoints` keeps it."""
        place = self._begin["place"]
        if self._elsewhere and is_url(place):
            self._cleaner.submit(_remove, candidate_url(place, number))
        elif self._elsewhere:
            shutil.rmtree(candidate_directory(Path(place), number), ignore_errors=True)

    def close(self) -> None:
        """Leave the cluster, or end the Ray of this machine; trainings go on with the search."""
        self._closed = True
        if hasattr(self, "_gateway"):
            self._gateway.end()
        self._cleaner.shutdown()
        if (temporary := self._begin["temporary"]) is not None:
            shutil.rmtree(temporary, ignore_errors=True)

    def _running(self) -> _Gateway:
        """The gateway, a new one when it has gone with the cluster's head."""
        with self._lock:
            if self._closed:
                raise SearchError(CLOSED)
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
                    self._gateway = _Gateway(self._begin, self._log)
                    return self._gateway
                except Unreachable as error:
                    if time.monotonic() > give_up:
                        raise SearchError(
                            f"{error}; nothing is lost: start the same search again"
                        ) from None
                time.sleep(AGAIN)


class Unreachable(SearchError):
    """No Ray answers."""


class _Gateway:
    """The gateway's process and the threads that wait for its answers."""

    def __init__(self, begin: GatewayBegin, log: Path) -> None:
        """Start the process, and return when Ray has said how many candidates it has room for.

        Raises `Unreachable` when no Ray answers, `SearchError` for what the user has to mend.
        """
        self.slots = 0
        self._ready = threading.Event()
        self._end: Any = None
        self._lock = threading.Lock()
        self._waiting: dict[int, queue.SimpleQueue[Answer]] = {}
        self._process = LineProcess(
            "blockqnn.workers.ray_gateway",
            begin,
            log=log,
            environment={**ENVIRONMENT, **(LOOPBACK if begin["address"] is None else {})},
            receive=self._receive,
        )
        try:
            self._wait(begin["address"], log)
        except BaseException:
            self.end()
            raise

    @property
    def running(self) -> bool:
        """Whether the gateway takes candidates."""
        return self._end is None and self._process.status is None

    def _wait(self, address: str | None, log: Path) -> None:
        self._ready.wait(START_TIMEOUT)
        if self.running and self._ready.is_set():
            return
        end = self._end or {}
        if "error" in end:
            raise SearchError(end["error"])
        why = end.get("unreachable", f"see {log}")
        if address is None:
            raise Unreachable(f"Ray does not start on this machine ({why})")
        raise Unreachable(
            f"workers.address is {address!r}, where no Ray answers ({why}): start one there "
            "(`ray start --head`), or give null for this machine alone"
        )

    def ask(self, task: CandidateTask) -> Answer:
        """The answer for a candidate; that it was lost when the gateway ends before."""
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        with self._lock:
            if self._end is not None:
                lost: Answer = self._end
                return lost
            self._waiting[task["number"]] = answers
        self._process.send(task)
        return answers.get()

    def end(self) -> None:
        """End the gateway, and the Ray of this machine if it was started for the search."""
        self._process.end(LEAVE)

    def _receive(self, message: Any) -> None:
        said = message or {}
        if "slots" in said:
            self.slots = said["slots"]
            self._ready.set()
        elif "warning" in said:
            log.warning(said["warning"])
        elif "number" in said:
            with self._lock:
                waiting = self._waiting.pop(said["number"])
            waiting.put(message)
        else:  # its end, or its last words
            with self._lock:
                self._end = self._end or {"lost": "Ray is gone", "blame": False, **said}
                for waiting in self._waiting.values():
                    waiting.put(self._end)
                self._waiting.clear()
            self._ready.set()


def check_place(setting: str, place: str) -> None:
    """Raise `SettingsError` where no checkpoint can be written: the nodes would not say so."""
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
