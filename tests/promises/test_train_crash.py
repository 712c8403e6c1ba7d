"""Final trainings through real kills: of the flow, of a training's process, and by SIGTERM.

However a run of trainings was interrupted, the same command ends it with the weights of one that
never was, and repeats no training that had finished.
"""

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_trainings import PATIENCE, Place, ended, sentence, train_here, untouched

from blockqnn.training.final.result import read_result
from blockqnn.workers.leash import descendants
from blockqnn.zoo import BLOCKS

EPOCHS = 120
SETTINGS = ["top=0", "search=null", "blocks=[plain,residual]", "compare=[]"]
OVERRIDES = {"top": 0, "search": None, "blocks": ["plain", "residual"], "compare": []}


class Interrupted:
    """A run of two trainings, a short and a long one, and the process that runs it now."""

    def __init__(self, place):
        self.place = place
        self.process = None

    def start(self):
        """Run both."""
        self.process = self.place.start("train", "--set", *SETTINGS, f"recipe.epochs={EPOCHS}")

    def wait_for_epoch(self, label):
        """Return the epochs that a running training has done, once it did more than now."""
        before = self.epochs(label)
        deadline = time.monotonic() + PATIENCE
        while self.epochs(label) <= before:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, "no epoch ends"
            time.sleep(0.002)
        return self.epochs(label)

    def epochs(self, label):
        """As the training last wrote them down."""
        for path in self.place.run.glob(f"trainings/{label}-*/progress.json"):
            return len(json.loads(path.read_text())["curve"])
        return 0

    def trainer(self):
        """The process that trains, and its directory."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for pid in descendants(self.process.pid):
                with suppress(OSError):
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                    if "blockqnn.training.final" in words:
                        return pid, Path(words[3])
            time.sleep(0.01)
        raise AssertionError("nothing is trained")

    def end(self, number):
        """Send the flow's process a signal; what it said, once all that it started is gone."""
        family = descendants(self.process.pid)
        self.process.send_signal(number)
        outcome = ended(self.process)
        deadline = time.monotonic() + PATIENCE
        while any(alive(pid) for pid in family):
            assert time.monotonic() < deadline, "a process outlived the flow"
            time.sleep(0.01)
        return outcome


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def interrupted(tmp_path):
    """Whatever happens, none of its processes stays."""
    interrupted = Interrupted(Place(tmp_path / "place"))
    yield interrupted
    process = interrupted.process
    if process is not None and process.poll() is None:
        for pid in [process.pid, *descendants(process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def uninterrupted(path):
    """The weights of the same trainings, each run in one go in this process."""
    place = Place(path)
    plan = place.plan(**OVERRIDES, **{"recipe.epochs": EPOCHS})
    found = {}
    for label in ("plain", "residual"):
        directory = train_here(place.job(label, plan, block=BLOCKS[label]))
        found[label] = load_file(directory / "weights.safetensors")
    return found


@pytest.mark.timeout(4 * PATIENCE)
def test_interrupted_in_every_way_it_ends_as_if_it_never_was(interrupted, tmp_path):
    interrupted.start()
    pid, first = interrupted.trainer()
    interrupted.wait_for_epoch("plain")
    os.kill(pid, signal.SIGKILL)  # the flow goes on from the checkpoint
    done = interrupted.wait_for_epoch("plain")
    assert done > 1
    assert interrupted.end(signal.SIGKILL)[0] == -signal.SIGKILL
    state = first / "checkpoint"
    assert state.exists() or read_result(first) is not None

    interrupted.start()
    interrupted.wait_for_epoch("residual")
    finished = untouched(first)
    assert read_result(first) is not None
    _, second = interrupted.trainer()
    status, _, errors = interrupted.end(signal.SIGTERM)
    assert status == 1
    assert "nothing is lost, the same command continues" in sentence(errors)
    assert read_result(second) is None
    assert (second / "checkpoint").exists()

    interrupted.start()
    interrupted.wait_for_epoch("residual")
    status, _, errors = interrupted.end(signal.SIGINT)
    assert status == 1
    assert "nothing is lost, the same command continues" in sentence(errors)

    interrupted.start()
    status, output, errors = ended(interrupted.process)
    assert status == 0, errors
    assert "(done before)" in output
    assert untouched(first) == finished
    expected = uninterrupted(tmp_path / "reference")
    for label, directory in (("plain", first), ("residual", second)):
        found = load_file(directory / "weights.safetensors")
        assert found.keys() == expected[label].keys()
        assert all(torch.equal(found[name], expected[label][name]) for name in found)
        curve = read_result(directory)["curve"]
        assert [entry["epoch"] for entry in curve] == list(range(1, EPOCHS + 1))
