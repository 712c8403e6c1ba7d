"""Workers, with real processes and real kills: an attempt is lost, never a candidate."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_search import small_disk, tiny_settings
from worker_processes import CODE, ONE, PARENT, PATIENCE, alive, holder, in_background, wait_for

from blockqnn.data import load
from blockqnn.errors import SearchError
from blockqnn.search.candidate_files import candidate_directory, identity
from blockqnn.search.journal import without_times
from blockqnn.space import Block
from blockqnn.training.checkpoint import Checkpoint
from blockqnn.workers.inline import InlineWorker
from blockqnn.workers.local import LocalWorkers
from blockqnn.workers.open import open_workers
from blockqnn.workers.protocol import WorkerDied, candidate_task

ROOT = Path(__file__).parents[2]


@pytest.fixture
def opened():
    """Opens workers and closes them in the end."""
    closing = []

    def open_for(settings, directory):
        workers = open_workers(settings, directory)
        closing.append(workers)
        return workers

    yield open_for
    for workers in closing:
        workers.close()


def test_inline_and_processes_give_the_same_outcome(tmp_path, opened):
    settings = tiny_settings(workers=ONE)
    (tmp_path / "inline").mkdir()
    inline = opened(tiny_settings(workers={"kind": "inline"}), tmp_path / "inline")
    processes = opened(settings, tmp_path)
    assert isinstance(inline, InlineWorker)
    assert isinstance(processes, LocalWorkers)
    assert inline.slots == processes.slots == 1
    first, second = inline.train(candidate_task(0, CODE)), processes.train(candidate_task(0, CODE))
    assert without_times(first.to_dict()) == without_times(second.to_dict())
    assert first.kind == "trained"
    assert len(first.curve) == 3


@pytest.mark.fault(
    "a local worker is killed in a training",
    "another resumes it from its checkpoint",
)
def test_a_worker_killed_in_a_training_is_replaced_and_the_training_resumed(tmp_path, opened):
    settings = tiny_settings(workers=ONE, recipe={"epochs": 20})
    workers = opened(settings, tmp_path)
    attempt = in_background(workers)
    pid = holder(tmp_path)
    checkpoint = candidate_directory(tmp_path, 0) / "checkpoint"
    wait_for(checkpoint.exists, "a checkpoint")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match=r"exit status -9.*workers/0.log"):
        attempt.result(PATIENCE)
    own = identity(Block.parse(CODE), settings, load(settings.data, 0).fingerprint)
    done = Checkpoint(checkpoint, own).load(torch.device("cpu"))["curve"]
    assert 0 < len(done) < 20
    outcome = workers.train(candidate_task(0, CODE))
    kept = [{name: epoch[name] for name in outcome.curve[0]} for epoch in done]
    assert list(outcome.curve[: len(done)]) == kept  # seconds too: these epochs were not run again
    assert len(outcome.curve) == 20
    assert not checkpoint.exists()
    inline = opened(tiny_settings(workers={"kind": "inline"}, recipe={"epochs": 20}), tmp_path)
    uninterrupted = inline.train(candidate_task(1, CODE))
    assert without_times(outcome.to_dict()) == without_times(uninterrupted.to_dict())


def test_an_outcome_that_could_not_be_answered_is_not_trained_again(tmp_path, opened):
    workers = opened(tiny_settings(workers=ONE), tmp_path)
    first = workers.train(candidate_task(0, CODE))
    assert workers.train(candidate_task(0, CODE)) == first  # the very seconds


@pytest.mark.fault(
    "the flow is killed with a local training under way",
    "its worker ends at once",
)
def test_a_worker_ends_when_its_parent_is_killed(tmp_path):
    settings = tiny_settings(workers=ONE, recipe={"epochs": 100_000})
    command = [sys.executable, "-c", PARENT, json.dumps(settings.to_dict()), tmp_path, CODE]
    with subprocess.Popen(command) as parent:
        pid = holder(tmp_path)
        assert alive(pid)
        parent.kill()
    begun = time.monotonic()
    wait_for(lambda: not alive(pid), "the worker's end")
    assert time.monotonic() - begun < 5


def test_a_worker_closed_in_a_training_ends_at_once(tmp_path, opened):
    workers = opened(tiny_settings(workers=ONE, recipe={"epochs": 100_000}), tmp_path)
    attempt = in_background(workers)
    pid = holder(tmp_path)
    workers.close()
    assert not alive(pid)
    with pytest.raises(SearchError, match="closed"):
        attempt.result(PATIENCE)


@pytest.mark.fault(
    "a local training hangs",
    "it is killed after workers.timeout and tried again",
)
def test_a_training_beyond_its_time_is_stopped(tmp_path, opened):
    settings = tiny_settings(workers={**ONE, "timeout": 2.0}, recipe={"epochs": 100_000})
    workers = opened(settings, tmp_path)
    attempt = in_background(workers)
    pid = holder(tmp_path)
    with pytest.raises(WorkerDied, match="ran out of time"):
        attempt.result(PATIENCE)
    assert not alive(pid)


def test_missing_data_are_explained_by_the_worker(tmp_path, opened):
    data = {"name": "cifar10", "root": str(tmp_path / "nowhere")}
    workers = opened(tiny_settings(workers=ONE, data=data), tmp_path)
    with pytest.raises(SearchError, match="data.download=true"):
        workers.train(candidate_task(0, CODE))


def pretend(tmp_path, monkeypatch, script):
    """Let workers run a shell script in place of Python."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", "exit status 3"),
        ("echo no module named torch >&2; exit 1", "its last words are in"),
        ("read begin; kill -9 $$", "exit status -9"),
        ("echo '{\"ready\": true}'; exit 3", "exit status 3"),
        ('read b; echo \'{"ready": true}\'; read t; printf \'{"number": 0, "outco\'', "died"),
    ],
)
def test_a_worker_that_ends_without_an_answer_is_lost(
    tmp_path, opened, monkeypatch, script, message
):
    pretend(tmp_path, monkeypatch, script)
    workers = opened(tiny_settings(workers=ONE), tmp_path)
    for _ in range(2):
        with pytest.raises(WorkerDied, match=message):
            workers.train(candidate_task(0, CODE))
    if "torch" in script:
        assert "no module named torch" in (tmp_path / "workers" / "0.log").read_text()


SMALL_MACHINE = """exec {python} -c '
from blockqnn.training import devices
from blockqnn.workers import process as worker
devices._free_memory = lambda: 1_300_000_000
worker.main()
'
"""


@pytest.mark.fault(
    "a candidate runs out of memory beside others",
    "it is trained alone before it is called infeasible",
)
def test_what_does_not_fit_beside_others_is_tried_alone(tmp_path, opened, monkeypatch):
    script = SMALL_MACHINE.format(python=sys.executable)
    pretend(tmp_path, monkeypatch, f"cd {ROOT}\n{script}")
    big = tiny_settings(network={"filters": [256, 256]}, recipe={"batch": 256, "epochs": 1})
    workers = opened(big, tmp_path)
    assert workers.slots == 2
    small = in_background(workers, 1, "(1,7,0,0,0)")
    outcome = workers.train(candidate_task(0, CODE))
    assert small.result(PATIENCE).kind in ("trained", "diverged")
    assert not outcome.out_of_memory


def test_a_worker_that_cannot_be_started_stops_the_search(tmp_path, opened, monkeypatch):
    workers = opened(tiny_settings(workers=ONE), tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(SearchError, match="cannot start a worker"):
        workers.train(candidate_task(0, CODE))


@pytest.mark.fault("the disk is full in a training", "the search stops and says what to do")
@pytest.mark.parametrize("kind", ["inline", "local"])
def test_a_full_disk_stops_the_search_and_is_no_outcome(tmp_path, opened, kind):
    settings = tiny_settings(
        workers={"kind": "inline"} if kind == "inline" else ONE,
        network={"filters": [32, 64]},  # a checkpoint of several 100 KB
    )
    with small_disk(tmp_path / "disk", 200) as disk:
        workers = opened(settings, disk)
        with pytest.raises(SearchError, match="free some space"):
            workers.train(candidate_task(0, CODE))
        own = candidate_directory(disk, 0)
        assert not (own / "outcome.json").exists()
        assert not list(own.glob("*.tmp"))
        workers.close()


def test_a_disk_too_full_for_a_log_is_explained(tmp_path, opened):
    workers = opened(tiny_settings(workers=ONE), tmp_path)
    (tmp_path / "workers" / "0.log").mkdir()  # as good as a full disk
    with pytest.raises(SearchError, match="cannot start a worker"):
        workers.train(candidate_task(0, CODE))


def test_two_workers_train_at_one_time(tmp_path, opened):
    workers = opened(tiny_settings(recipe={"epochs": 100_000}), tmp_path)
    attempts = [in_background(workers, number) for number in range(2)]
    pids = {holder(tmp_path, number) for number in range(2)}
    assert len(pids) == 2
    workers.close()
    for attempt in attempts:
        with pytest.raises(SearchError):
            attempt.result(PATIENCE)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux binds to cores")
def test_a_process_bound_to_one_core_has_one_worker(tmp_path):
    script = (
        "import os, sys; os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1]); "
        f"sys.path.insert(0, {str(ROOT / 'tests' / 'helpers')!r}); from pathlib import Path; "
        "from tiny_search import tiny_settings; from blockqnn.workers.open import open_workers; "
        "settings = tiny_settings(workers={'kind': 'local', 'devices': ['cpu']}); "
        "workers = open_workers(settings, Path(sys.argv[1])); print(workers.slots); workers.close()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert result.stdout.split() == ["1"], result.stderr
