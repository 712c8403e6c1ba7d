"""The Ray that a search starts for itself: of this machine alone, and gone with the search."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ports import LOOPBACK, listening
from ray_cluster import wait_for
from tiny_search import tiny_settings
from worker_processes import CODE, PARENT, alive, holder

from blockqnn.errors import SearchError, SettingsError
from blockqnn.workers.leash import descendants
from blockqnn.workers.open import open_workers
from blockqnn.workers.protocol import candidate_task

pytest.importorskip("ray")
ALONE = {"kind": "ray", "count": 1, "gpus_per_candidate": 0}


@pytest.fixture
def scratch(monkeypatch):
    """Where temporary files go; a short path, as Ray's sockets need one."""
    place = Path(f"/tmp/bq-{os.getpid()}")
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", str(place))
    yield place
    shutil.rmtree(place)


def of_ray(scratch):
    """What Ray's files lie in; torch leaves others."""
    return list(scratch.glob("blockqnn-ray-*"))


def gateway_of(pid):
    (found,) = [
        child
        for child in descendants(pid)
        if b"blockqnn.workers.ray_gateway" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    return found


def all_gone(family):
    for pid in family:
        wait_for(lambda pid=pid: not alive(pid), f"the end of process {pid}")


def test_it_listens_here_alone_and_leaves_nothing(tmp_path, scratch):
    workers = open_workers(tiny_settings(workers=ALONE), tmp_path)
    try:
        assert workers.slots == 1
        first = workers.train(candidate_task(0, CODE))
        assert first.kind == "trained"
        gateway = gateway_of(os.getpid())
        family = [gateway, *descendants(gateway)]
        assert listening(family) <= LOOPBACK
        assert listening(family)
        os.kill(gateway, signal.SIGKILL)
        all_gone(family)
        again = workers.train(candidate_task(0, CODE))
        assert again == first  # by another gateway and Ray; it was on disk
        gateway = gateway_of(os.getpid())
        family = [gateway, *descendants(gateway)]
    finally:
        workers.close()
    all_gone(family)
    assert not of_ray(scratch)


def test_it_ends_with_a_killed_flow(tmp_path, scratch):
    settings = tiny_settings(workers=ALONE, recipe={"epochs": 100_000})
    command = [sys.executable, "-c", PARENT, json.dumps(settings.to_dict()), tmp_path, CODE]
    with subprocess.Popen(command) as parent:
        pid = holder(tmp_path)
        family = [*descendants(parent.pid), pid]
        parent.kill()
    all_gone(family)
    wait_for(lambda: not of_ray(scratch), "the removal of its files")


def test_no_cluster_at_the_address(tmp_path):
    settings = tiny_settings(workers={"kind": "ray", "address": "127.0.0.1:9"})
    with pytest.raises(SearchError, match="'127.0.0.1:9', where no Ray answers.*ray start --head"):
        open_workers(settings, tmp_path)


def test_a_machine_that_no_candidate_fits(tmp_path, scratch):
    settings = tiny_settings(workers={"kind": "ray", "cpus_per_candidate": 4096})
    with pytest.raises(SearchError, match="cpus_per_candidate is 4096, but this machine has"):
        open_workers(settings, tmp_path)
    assert not of_ray(scratch)


@pytest.mark.parametrize("place", ["nowhere://bucket/x", "{}/file/x"])
def test_a_place_for_checkpoints_that_takes_none(tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    settings = tiny_settings(workers={"kind": "ray", "checkpoints": place.format(tmp_path)})
    with pytest.raises(SettingsError, match="workers.checkpoints is .*nothing can be written"):
        open_workers(settings, tmp_path)
