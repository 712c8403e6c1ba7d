"""The Ray driver of a search: a process of its own, `python -m blockqnn.workers.ray_gateway`.

Ray ends the process that drives it when the cluster's head is gone, so the flow does not drive it.
The gateway speaks JSON lines. The first message is a `GatewayBegin`; every further one a
`CandidateTask`, answered by an `Answer` with its number. The gateway says `{"slots": 8}` whenever
the room in the cluster changes, and `{"warning": "..."}`, for people, when there is none. An
`error` without a number, and `{"unreachable": "..."}`, are its end.
"""

import queue
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import ray
from ray import exceptions

from blockqnn.data import load
from blockqnn.errors import SearchError, UserError
from blockqnn.params import settings_from_dict
from blockqnn.settings import RaySettings
from blockqnn.training.keep_memory import KEEP_MEMORY
from blockqnn.workers import leash
from blockqnn.workers.lines import Message, serve
from blockqnn.workers.protocol import Answer, CandidateTask, GatewayBegin, NodeBegin
from blockqnn.workers.ray_node import train_on_node

LOOK = 1.0
"""Seconds between two looks at the cluster's nodes."""

CONNECT_TIMEOUT = 10.0
"""Seconds that the head of a cluster may take to accept a connection."""

AVOID = 60.0
"""Seconds that a node that cannot work, with a full disk say, gets no candidate while others do."""

NODE_ID = "ray.io/node-id"
"""Ray's label that holds the id of a node."""

NOT_ITS_DOING = (
    exceptions.NodeDiedError,
    exceptions.LocalRayletDiedError,
    exceptions.ObjectLostError,
    exceptions.ObjectStoreFullError,
    exceptions.OutOfDiskError,
    exceptions.RaySystemError,
)
"""Errors of Ray for which no candidate is to blame."""


class Gateway:
    """Hands candidates to Ray, and gives what comes of them to `send`."""

    def __init__(
        self, begin: GatewayBegin, events: queue.SimpleQueue[Any], send: Callable[[Message], None]
    ) -> None:
        """`events` brings a `CandidateTask` for each candidate to train."""
        self._events = events
        self._send = send
        self._begin = begin
        settings = settings_from_dict(begin["settings"])
        assert isinstance(settings.workers, RaySettings)
        self._workers = settings.workers
        self._images: Any = None
        if self._workers.share_data:
            self._images = ray.put(load(settings.data, settings.seed).to_arrays())
        self._begun: dict[int, tuple[Any, float]] = {}
        self._late: set[int] = set()
        self._avoided: dict[str, float] = {}
        self._slots = -1
        self._said_no_room = False
        self._gpus = 0.0
        self._node_cpus = 1
        self._share = 1
        self._room: dict[str, int] = {}
        # Never a process anew for each candidate, which is Ray's way with GPUs: importing torch
        # takes seconds. A process that meets another GPU than before uses that one by its number.
        self._train = ray.remote(max_calls=0)(train_on_node)

    def run(self) -> None:
        """Work until standard input closes or Ray is gone."""
        looked = 0.0
        while True:
            if time.monotonic() - looked >= LOOK:
                self._look()
                self._expire()
                looked = time.monotonic()
            try:
                event = self._events.get(timeout=LOOK)
            except queue.Empty:
                continue
            if isinstance(event, tuple):
                self._hear(*event)
            else:
                self._submit(event)

    def _submit(self, task: CandidateTask) -> None:
        number = task["number"]
        gpus, cpus = self._gpus, self._workers.cpus_per_candidate
        alone = task["alone"] or self._share == 1
        if alone and gpus:
            gpus = max(1.0, gpus)
        elif alone:
            cpus = max(cpus, self._node_cpus)
        threads = str(self._workers.cpus_per_candidate)
        environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        if gpus:
            environment["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"] = "1"
        else:
            environment |= KEEP_MEMORY
        begin: NodeBegin = {
            "settings": self._begin["settings"],
            "threads": self._workers.cpus_per_candidate,
            "share": self._share,
            "place": self._begin["place"],
        }
        options = self._train.options(
            name=f"candidate-{number}",
            num_cpus=cpus,
            num_gpus=gpus,
            max_retries=0,
            runtime_env={"env_vars": environment},
            label_selector={NODE_ID: f"!in({','.join(self._avoided)})"} if self._avoided else {},
        )
        stream = options.remote(begin, {**task, "alone": alone}, self._images)
        threading.Thread(target=self._follow, args=(number, stream), daemon=True).start()

    def _follow(self, number: int, stream: Any) -> None:
        """Put what a Ray task says among the events, in a thread of its own."""
        try:
            for reference in stream:
                self._events.put((number, stream, ray.get(reference)))
        except exceptions.RayError as error:
            self._events.put((number, stream, error))

    def _hear(self, number: int, stream: Any, said: Answer | exceptions.RayError) -> None:
        if not isinstance(said, Exception) and "begun" in said:
            self._begun[number] = (stream, time.monotonic())
            return
        self._begun.pop(number, None)
        late = number in self._late
        self._late.discard(number)
        end = self._failure(said, late) if isinstance(said, Exception) else self._end(said)
        self._send({"number": number, **end})

    def _end(self, answer: Answer) -> Answer:
        node = answer.pop("node")
        if "error" in answer and self._others(node):
            self._avoided[node] = time.monotonic() + AVOID
            return {"lost": answer["error"], "blame": False}
        return {**answer, "blame": False}

    def _failure(self, error: exceptions.RayError, late: bool) -> Answer:
        if late:
            return {"lost": "it ran out of time", "blame": True}
        if isinstance(error, NOT_ITS_DOING):
            return {"lost": f"{type(error).__name__}: {_first_line(error)}", "blame": False}
        if isinstance(error, exceptions.RayTaskError):
            if isinstance(error.cause, ImportError):
                return {
                    "error": f"a node of the cluster cannot train ({error.cause}): install there "
                    "what is installed here, blockqnn in the same version"
                }
            return {"lost": f"{type(error.cause).__name__}: {error.cause}", "blame": True}
        if isinstance(error, exceptions.RuntimeEnvSetupError):
            return {"error": f"a node cannot start workers: {_first_line(error)}"}
        return {"lost": f"its worker died ({_first_line(error)})", "blame": True}

    def _others(self, node: str) -> bool:
        """Whether any other node can train a candidate now."""
        return any(
            room and name != node and name not in self._avoided for name, room in self._room.items()
        )

    def _expire(self) -> None:
        """Kill trainings that run for longer than `workers.timeout`."""
        for number, (stream, since) in self._begun.items():
            if time.monotonic() - since > self._workers.timeout and number not in self._late:
                self._late.add(number)
                ray.cancel(stream, force=True)

    def _look(self) -> None:
        """See how many candidates the nodes have room for, and say when that has changed."""
        now = time.monotonic()
        self._avoided = {node: until for node, until in self._avoided.items() if until > now}
        alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        wanted = self._workers.gpus_per_candidate
        if wanted is None:
            wanted = 1.0 if any(node.get("GPU", 0) >= 1 for node in alive.values()) else 0.0
        cpus = self._workers.cpus_per_candidate
        self._gpus = wanted
        self._room = {
            name: min(
                int(node.get("CPU", 0) // cpus),
                int(node.get("GPU", 0) / wanted + 1e-9) if wanted else sys.maxsize,
            )
            for name, node in alive.items()
            if name not in self._avoided
        }
        self._node_cpus = max((int(node.get("CPU", 0)) for node in alive.values()), default=1)
        per_device = int(1 / wanted + 1e-9) if wanted else max(self._room.values(), default=1)
        self._share = max(1, per_device)
        if not any(self._room.values()) and not self._avoided:
            self._no_room(alive.values())
        else:
            self._said_no_room = False
        slots = self._workers.count or sum(self._room.values())
        if slots != self._slots:
            self._slots = slots
            self._send({"slots": slots})

    def _no_room(self, nodes: Collection[Mapping[str, float]]) -> None:
        """Say that no node can train a candidate; `SearchError` where no other will ever join."""
        needs = f"workers.cpus_per_candidate is {self._workers.cpus_per_candidate}"
        if self._gpus:
            needs += f" and workers.gpus_per_candidate {self._gpus:g}"
        sizes = {f"{node.get('CPU', 0):g} cores, {node.get('GPU', 0):g} GPUs" for node in nodes}
        if self._workers.address is None:
            raise SearchError(
                f"{needs}, but this machine has {'; '.join(sizes)}: give less, or the address of a "
                "cluster"
            )
        if not self._said_no_room:
            self._said_no_room = True
            found = "; ".join(sorted(sizes)) or "none"
            self._send({"warning": f"{needs}: no node has that (of {found}); one has to join"})


def _connect(address: str | None, directory: str | None) -> None:
    """Join a cluster, or start a Ray of this process alone, its files in `directory`."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    quiet["namespace"] = "blockqnn"
    if address is not None:
        host, colon, port = address.rpartition(":")
        if colon and port.isdecimal():  # Ray itself would ask for a minute and a half
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT).close()
        ray.init(address=address, **quiet)
    else:
        ray.init(address="local", include_dashboard=False, _temp_dir=directory, **quiet)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def main() -> None:
    """Serve standard input until it closes."""
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    begin: GatewayBegin | None = None

    def leave() -> None:
        if begin is not None and (own := begin["temporary"]):
            leash.stop_descendants(grace=0)  # the Ray of this process, which Ray may leave to hang
            shutil.rmtree(own, ignore_errors=True)

    send = serve(events.put, leave)
    begin = events.get()
    assert begin is not None
    try:
        _connect(begin["address"], begin["temporary"])
    except Exception as error:  # Ray raises many things for a cluster that does not answer
        send({"unreachable": f"{type(error).__name__}: {_first_line(error)}"})
        return
    try:
        Gateway(begin, events, send).run()
    except UserError as error:
        send({"error": str(error)})


if __name__ == "__main__":
    main()
