"""A search on a Ray cluster, and what happens to clusters: real kills, stops and full disks.

After each the search ends with the journal of an undisturbed one, and no candidate was trained to
its end twice.
"""

import json
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

import pytest
from journals import without_workers
from ray_cluster import PATIENCE, ROOT, ray_cluster, wait_for
from tiny_search import finish, timeless, tiny_settings
from worker_processes import CODE, alive

from blockqnn.search import Search
from blockqnn.search.history import read_search
from blockqnn.workers.inline import InlineWorker
from blockqnn.workers.leash import descendants
from blockqnn.workers.open import open_workers
from blockqnn.workers.protocol import WorkerDied, candidate_task, task_of

SMALL = {
    "batch": 3,
    "schedule": [[1.0, 2]],
    "data": {"images": 300},
    "network": {"filters": [4, 8]},
    "recipe": {"epochs": 30},
}


def settings_for(cluster, **workers):
    """The search of these tests on a cluster."""
    given = {"kind": "ray", "address": cluster.address, "patience": PATIENCE, **workers}
    return tiny_settings(**SMALL, workers=given)


@pytest.fixture(scope="module")
def whole_cluster():
    """One cluster for all, as starting nodes takes seconds."""
    with ray_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(whole_cluster):
    """The same with two compute nodes of a CPU each."""
    whole_cluster.have(2)
    return whole_cluster


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The journal of the same search, undisturbed, in this process."""
    directory = tmp_path_factory.mktemp("undisturbed")
    settings = tiny_settings(**SMALL, workers={"kind": "inline", "device": "cpu"})
    worker = InlineWorker(settings, settings.workers, directory)
    finish(directory, settings, lambda c: worker.train(task_of(c)))
    records = timeless(directory)
    trained = [r for r in records if r["type"] == "outcome" and "same_as" not in r]
    assert len(trained) >= 4
    return without_workers(records)


class Running:
    """A search under way in a thread, without Prefect."""

    def __init__(self, directory, settings, place=None):
        self.directory = directory
        self.place = place or directory
        self.workers = open_workers_in(directory, settings)
        self._settings = settings
        self._executor = ThreadPoolExecutor(1)
        self._future = self._executor.submit(self._run)

    def _run(self):
        with Search.open(self.directory, self._settings) as search, ThreadPoolExecutor() as pool:
            running = {}
            try:
                while not search.finished:
                    while len(running) < self.workers.slots and (c := search.ask()) is not None:
                        running[pool.submit(self._train, c)] = c
                    for future in wait(running, 0.1, return_when=FIRST_COMPLETED).done:
                        candidate = running.pop(future)
                        search.tell(candidate, future.result())
                        self.workers.forget(candidate.number)
            finally:
                self.workers.close()

    def _train(self, candidate):
        for _ in range(self._settings.workers.retries):
            with suppress(WorkerDied):
                return self.workers.train(task_of(candidate))
        raise AssertionError(f"every attempt at {candidate} failed")

    def end(self):
        """Wait for the search's end."""
        self._future.result(PATIENCE)

    def training(self):
        """A candidate that is in training, an epoch done, and the process that trains it."""

        def look():
            if self._future.done():
                self._future.result()
                raise AssertionError("the search ended before it could be disturbed")
            return next(trainings(self.place), None)

        return wait_for(look, "a training")

    def close(self):
        self.workers.close()
        self._executor.shutdown()


def open_workers_in(directory, settings):
    directory.mkdir(parents=True, exist_ok=True)
    return open_workers(settings, directory)


def trainings(place):
    """Candidates that have a checkpoint and no outcome, and who holds their lock."""
    for directory in sorted(place.glob("candidates/*")):
        with suppress(OSError, ValueError):
            pid = json.loads((directory / "lock").read_text())["pid"]
            unfinished = not (directory / "outcome.json").exists()
            if alive(pid) and unfinished and (directory / "checkpoint").exists():
                yield int(directory.name), pid


@pytest.fixture
def start(tmp_path):
    """Starts a search; it is over when the test is."""
    started = []

    def begin(settings, place=None):
        started.append(Running(tmp_path / "runs" / "search", settings, place))
        return started[-1]

    yield begin
    for running in started:
        running.close()


def ended_as(expected, cluster, running):
    """The search ends as if nothing had been, and nothing was trained to its end twice."""
    running.end()
    check(expected, cluster, running.directory, running.place)


def check(expected, cluster, directory, place=None):
    assert without_workers(timeless(directory)) == expected
    completed = cluster.completed(place or directory)
    trained = {
        result.candidate.number
        for result in read_search(directory).results
        if result.same_as is None and not result.outcome.reason.startswith("needs")
    }
    assert completed == Counter(trained)
    assert not list(directory.glob("candidates/*"))


def hit(running, number, pid, sign):
    """Send a signal; whether it met the training before its end."""
    os.kill(pid, sign)
    if sign == signal.SIGKILL:
        wait_for(lambda: not alive(pid), "the worker's end")
    return not (running.place / "candidates" / f"{number:06d}" / "outcome.json").exists()


def disturb(running, sign):
    """Signal the worker of a training until one is met before its end; its candidate."""
    while True:
        number, pid = running.training()
        if hit(running, number, pid, sign):
            return number, pid
        if sign == signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)


def test_two_nodes_search_as_this_process_does(cluster, expected, tmp_path):
    flow = command(tmp_path, settings_for(cluster))
    assert flow.wait(PATIENCE) == 0, (tmp_path / "log").read_text()
    check(expected, cluster, tmp_path / "runs" / "search")


def test_shares_of_a_gpu(cluster, tmp_path):
    cluster.have(1)
    node = cluster.add(num_cpus=8, num_gpus=2)  # Ray's word for it: nothing is trained there
    workers = open_workers_in(tmp_path, settings_for(cluster, gpus_per_candidate=0.25))
    try:
        assert workers.slots == 8
    finally:
        workers.close()
        cluster.leave(node)


@pytest.mark.fault("a worker process is killed (SIGKILL)", "its candidate goes on in another")
def test_a_worker_killed(cluster, expected, start):
    running = start(settings_for(cluster))
    disturb(running, signal.SIGKILL)
    ended_as(expected, cluster, running)


@pytest.mark.slow  # a minute, mostly of waiting
@pytest.mark.fault(
    "a worker is stopped for a while (SIGSTOP, SIGCONT)", "the others work, then it goes on"
)
def test_a_worker_stopped_for_a_while(cluster, expected, start):
    running = start(settings_for(cluster))
    number, pid = disturb(running, signal.SIGSTOP)
    outcomes = "candidates/*/outcome.json"
    wait_for(lambda: list(running.directory.glob(outcomes)), "another's outcome")
    os.kill(pid, signal.SIGCONT)
    ended_as(expected, cluster, running)


@pytest.mark.slow  # a time that no busy machine needs for a training, waited for
@pytest.mark.fault(
    "a worker is stopped for good (SIGSTOP)", "after workers.timeout another takes its candidate"
)
def test_a_worker_stopped_for_good(cluster, expected, start):
    running = start(settings_for(cluster, timeout=45.0))
    _, pid = disturb(running, signal.SIGSTOP)
    ended_as(expected, cluster, running)
    assert not alive(pid)


@pytest.mark.fault("a node is killed", "its candidates go on elsewhere and cost no attempt")
def test_a_node_killed(cluster, expected, start):
    running = start(settings_for(cluster, retries=1))
    _, pid = running.training()
    cluster.kill(cluster.node_of(pid))
    ended_as(expected, cluster, running)


@pytest.mark.fault("a node joins and one leaves", "more candidates in training, then fewer")
def test_a_node_joins_and_one_leaves(cluster, expected, start):
    cluster.have(1)
    running = start(settings_for(cluster, retries=1))
    _, first = disturb(running, signal.SIGSTOP)  # or the search may end before the node is there
    assert running.workers.slots == 1
    cluster.have(2)
    wait_for(lambda: running.workers.slots == 2, "the new node's room")
    wait_for(lambda: len(list(trainings(running.place))) == 2, "two trainings at one time")
    os.kill(first, signal.SIGCONT)
    _, pid = running.training()
    cluster.leave(cluster.node_of(pid))
    wait_for(lambda: running.workers.slots == 1, "the node's leaving")
    ended_as(expected, cluster, running)


@pytest.mark.fault("the gateway to Ray is killed", "another connects; its trainings go on")
def test_the_gateway_killed(cluster, expected, start):
    running = start(settings_for(cluster, retries=1))
    running.training()
    (gateway,) = processes_of("blockqnn.workers.ray_gateway")
    os.kill(gateway, signal.SIGKILL)
    ended_as(expected, cluster, running)


def processes_of(name, root=None):
    """Descendants by what their command line has."""
    found = []
    for pid in descendants(root or os.getpid()):
        with suppress(OSError):
            if name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_no_node_with_room(cluster, tmp_path, caplog):
    workers = open_workers_in(tmp_path / "search", settings_for(cluster, cpus_per_candidate=3))
    try:
        wait_for(lambda: "no node has that" in caplog.text, "the warning")
        cluster.add(num_cpus=3)
        assert workers.train(candidate_task(0, CODE)).kind == "trained"
        assert caplog.text.count("no node has that") == 1
    finally:
        workers.close()


@pytest.mark.fault("the disk of one node is full", "its candidates go to the others")
def test_the_disk_of_one_node_full(cluster, expected, start, tmp_path, caplog):
    private = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", tmp_path]
    if os.geteuid() or subprocess.run(private, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    cluster.have(1)
    small = cluster.add(env_vars={"TEST_SMALL_DISK": str(disk)})
    with caplog.at_level(logging.WARNING):
        running = start(settings_for(cluster, checkpoints=str(disk)), disk / "search")
        ended_as(expected, cluster, running)
    cluster.leave(small)
    assert "free some space" in caplog.text


@pytest.mark.fault(
    "a checkpoint on shared storage is cut short", "it is refused and its training begun anew"
)
def test_a_truncated_checkpoint_on_shared_storage(cluster, expected, start, tmp_path):
    shared = tmp_path / "shared"
    running = start(settings_for(cluster, checkpoints=str(shared)), shared / "search")
    number, _ = disturb(running, signal.SIGKILL)
    checkpoint = shared / "search" / "candidates" / f"{number:06d}" / "checkpoint"
    os.truncate(checkpoint, checkpoint.stat().st_size // 2)
    ended_as(expected, cluster, running)
    assert not list(shared.glob("search/candidates/*"))


@pytest.mark.fault("the head node is killed, a new one comes up", "the search goes on there")
def test_the_head_killed(cluster, expected, start):
    running = start(settings_for(cluster, retries=1))
    running.training()
    cluster.kill(cluster.head)
    cluster.restart_head()
    cluster.have(2)
    ended_as(expected, cluster, running)


def command(place, settings, *arguments):
    """`blockqnn search` in a process of its own."""
    (place / "params.yaml").write_text(json.dumps({"search": settings.to_dict()}))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(place / "prefect")}
    environment.pop("PREFECT_API_URL", None)
    search = ["search", "--name", "search", "--params", "params.yaml", "--profile", "none"]
    with (place / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *search, *arguments],
            cwd=place,
            env=environment,
            stdout=log,
            stderr=log,
        )


@pytest.mark.fault("the flow is killed", "its trainings end; the same command goes on with them")
def test_the_flow_killed_and_run_again(cluster, expected, tmp_path):
    directory = tmp_path / "runs" / "search"
    settings = settings_for(cluster)
    flow = command(tmp_path, settings)
    try:
        number, pid = wait_for(lambda: next(trainings(directory), None), "a training")
        family = [*descendants(flow.pid), pid]
        flow.kill()
        flow.wait()
        for process in family:
            wait_for(lambda process=process: not alive(process), "the end of what it started")
        flow = command(tmp_path, settings)
        assert flow.wait(PATIENCE) == 0, (tmp_path / "log").read_text()
    finally:
        flow.kill()
        flow.wait()
    check(expected, cluster, directory)
