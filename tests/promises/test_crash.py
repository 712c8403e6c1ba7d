"""The promise that nothing is lost and nothing done twice, with real kills.

A search of real trainings by two worker processes is killed seven times with SIGKILL (`make soak`:
twelve times): the process that holds the search, a worker, all of them; after random numbers of
epochs, in the middle of a write to the journal, in the middle of writing a checkpoint. What it
records in the end equals an uninterrupted run.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from journals import without_workers
from tiny_search import finish, journal_of, timeless, tiny_settings

from blockqnn.errors import SearchError
from blockqnn.search.history import read_search
from blockqnn.workers.inline import InlineWorker
from blockqnn.workers.leash import descendants
from blockqnn.workers.protocol import task_of

ROOT = Path(__file__).parents[2]
EPOCHS = 6
SMALL = {
    "data": {"images": 400},
    "network": {"filters": [4, 8]},
    "recipe": {"epochs": EPOCHS, "images": 200},
    "rungs": [{"share": 0.4, "epochs": 3, "images": 240}, {"share": 0.5, "epochs": 3}],
    "space": {"max_index": 5},
}
PATIENCE = 300.0

DRIVER = """
import json, os, signal, sys
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

from blockqnn.params import settings_from_dict
from blockqnn.search.search import Search
from blockqnn.workers.open import open_workers
from blockqnn.workers.protocol import WorkerDied, task_of

directory, settings = Path(sys.argv[1]), settings_from_dict(json.loads(sys.argv[2]))
writes_left = int(sys.argv[3])
write = os.write


def torn(descriptor, data):
    global writes_left
    if os.readlink(f"/proc/self/fd/{descriptor}").endswith("journal.jsonl"):
        writes_left -= 1
        if writes_left == 0:
            write(descriptor, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
    return write(descriptor, data)


def train(candidate):
    while True:
        try:
            return workers.train(task_of(candidate))
        except WorkerDied:
            pass


if writes_left:
    os.write = torn
with Search.open(directory, settings) as search, ThreadPoolExecutor() as pool:
    workers = open_workers(settings, directory)
    running = {}
    while not search.finished:
        while len(running) < workers.slots and (candidate := search.ask()) is not None:
            running[pool.submit(train, candidate)] = candidate
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            search.tell(running.pop(future), future.result())
    workers.close()
"""


class Killed:
    """A search in a directory, the processes that run it, and what was done to them."""

    def __init__(self, directory, settings, place):
        self.directory = directory
        self.settings = settings
        self.place = place
        self.kills = Counter()
        self.torn = set()
        self.process = None
        (place / "params.yaml").write_text(json.dumps({"search": settings.to_dict()}))

    def start(self, tear=0):
        """Run the search without Prefect, unless it runs; die within the `tear`-th write."""
        if self.process is None or self.process.poll() is not None:
            arguments = [self.directory, json.dumps(self.settings.to_dict()), str(tear)]
            self._run([sys.executable, "-c", DRIVER, *arguments])

    def start_command(self, **environment):
        """Run the search by the blockqnn command."""
        search = ["search", "--name", self.directory.name, "--runs", self.directory.parent]
        params = ["--params", self.place / "params.yaml", "--profile", "none"]
        self._run([sys.executable, "-m", "flows.cli", *search, *params], environment)

    def wait(self):
        """The exit status of what runs now."""
        return self.process.wait(PATIENCE)

    def epochs(self, count):
        """Return after so many ends of epochs, seen as new checkpoints."""
        seen, left = self._checkpoints(), count
        deadline = time.monotonic() + PATIENCE
        while left > 0:
            assert self.process.poll() is None, f"it ended after {self.kills}: {self.log()}"
            assert time.monotonic() < deadline, f"no epoch ends: {self.log()}"
            now = self._checkpoints()
            left -= len(now - seen)
            seen |= now
            time.sleep(0.001)

    def writing(self):
        """The process that is writing a checkpoint right now, and the file, once there is one."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"it ended after {self.kills}: {self.log()}"
            for path in self._files("checkpoint.*.tmp"):
                if path not in self.torn:
                    return int(path.name.split(".")[1]), path
        raise AssertionError("no checkpoint is written")

    def workers(self):
        """Process ids of the workers."""
        found = []
        for pid in descendants(self.process.pid):
            with suppress(OSError):
                if b"blockqnn.workers.process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def kill(self, what, *pids):
        """SIGKILL; when the search's own process is among them, all that it started must end."""
        family = [self.process.pid, *descendants(self.process.pid)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.kills[what] += 1
        if self.process.pid in pids:
            self.process.wait()
            wait_for_end_of(family)
        else:
            wait_for_end_of(pids)
        with suppress(SearchError):  # nothing yet; of damage the next start would tell
            assert not read_search(self.directory).finished

    def log(self):
        return (self.place / "log").read_text()[-2000:]

    def _run(self, command, environment=None):
        environment = {
            **os.environ,
            **(environment or {}),
            "PYTHONPATH": str(ROOT),
            "PREFECT_HOME": str(self.place / "prefect"),
        }
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.place, env=environment, stdout=log, stderr=log
            )

    def _files(self, pattern):
        """Files of candidates, whose directories come and go."""
        found = []
        for directory in self.directory.glob("candidates/*"):
            with suppress(OSError):
                found.extend(directory.glob(pattern))
        return found

    def _checkpoints(self):
        found = set()
        for path in self._files("checkpoint"):
            with suppress(OSError):
                status = path.stat()
                found.add((path, status.st_ino, status.st_mtime_ns))
        return found


def wait_for_end_of(pids):
    """Nobody outlives the search's process by more than some seconds."""
    deadline = time.monotonic() + 30

    def state(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return "X"

    while any(state(pid) not in "ZX" for pid in pids):
        assert time.monotonic() < deadline, "a process outlived the search's"
        time.sleep(0.01)


@pytest.fixture
def killed(tmp_path):
    """A search to be killed; whatever happens, none of its processes stays."""
    search = Killed(tmp_path / "runs" / "killed", tiny_settings(**SMALL), tmp_path)
    yield search
    if search.process is not None and search.process.poll() is None:
        family = [search.process.pid, *descendants(search.process.pid)]
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def uninterrupted(directory):
    """The same search from start to end in this process."""
    directory.mkdir()
    settings = tiny_settings(**SMALL, workers={"kind": "inline", "device": "cpu"})
    worker = InlineWorker(settings, settings.workers, directory)
    finish(directory, settings, lambda c: worker.train(task_of(c)))
    return directory


SEVEN = ["journal", "checkpoint", "worker", "worker", "holder", "all", "command"]
TWELVE = [*SEVEN, "journal", "checkpoint", "worker", "holder", "command"]


@pytest.mark.fault(
    "seven kills, twelve in `make soak`: flow, workers, all; within a write to the journal or a"
    " checkpoint",
    "each time the same command goes on",
)
@pytest.mark.parametrize(
    "kinds", [SEVEN, pytest.param(TWELVE, marks=pytest.mark.slow)], ids=["seven", "twelve"]
)
def test_killed_many_times_a_search_ends_as_if_it_never_was(kinds, killed, tmp_path, api):
    rng = random.Random(20)
    by_driver = [kind for kind in kinds if kind != "command"]
    rng.shuffle(by_driver)
    for kind in [*by_driver, *["command"] * kinds.count("command")]:
        if kind == "journal":
            if killed.process is not None and killed.process.poll() is None:
                killed.kill("before", killed.process.pid)
                del killed.kills["before"]
            killed.start(tear=rng.randint(1, 3))
            assert killed.wait() == -signal.SIGKILL, killed.log()
            killed.kills[kind] += 1
            continue
        if kind == "command":
            if killed.process.poll() is None:
                killed.kill("before", killed.process.pid)
                del killed.kills["before"]
            killed.start_command()
        else:
            killed.start()
        if kind == "checkpoint":
            while True:  # until one is caught with its file half written
                pid, path = killed.writing()
                killed.kill("at a checkpoint", pid)
                if path.exists():
                    killed.torn.add(path)
                    killed.kills[kind] += 1
                    break
        else:
            killed.epochs(rng.randint(1, 4))
            time.sleep(rng.random() / 20)
            own, workers = killed.process.pid, killed.workers()
            targets = {"worker": [rng.choice(workers)], "all": [*workers, own]}
            killed.kill(kind, *targets.get(kind, [own]))
    done = sum(count for kind, count in killed.kills.items() if kind != "at a checkpoint")
    assert done == len(kinds)
    killed.start_command(PREFECT_API_URL=api)
    assert killed.wait() == 0, killed.log()

    records = timeless(killed.directory)
    expected = timeless(uninterrupted(tmp_path / "uninterrupted"))
    assert without_workers(records) == without_workers(expected)
    outcomes = [record for record in records if record["type"] == "outcome"]
    proposals = {r["number"]: r for r in records if r["type"] == "proposal"}
    assert [record["number"] for record in outcomes] == sorted(proposals) == list(range(30))
    own = [proposals[r["number"]] for r in outcomes if "same_as" not in r]
    trained = [(proposal["key"], proposal.get("rung", 0)) for proposal in own]
    assert len(trained) == len(set(trained))
    assert {rung for _, rung in trained} == {0, 1, 2}
    ends = Counter(r["outcome"]["kind"] for r in outcomes if "outcome" in r)
    assert ends["trained"] >= 5, ends
    assert not list(killed.directory.glob("candidates/*"))
    assert len(journal_of(killed.directory)) == 61
