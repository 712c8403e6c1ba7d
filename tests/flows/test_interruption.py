"""A signal ends a run wherever Python was when it came."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]

DROPPED = """
import signal
from flows.interruption import raise_if_interrupted, remember_signals

class Finalised:
    def __del__(self):
        signal.raise_signal(signal.{name})

{before}
with remember_signals():
    raise_if_interrupted()
    Finalised()  # Python prints the exception and goes on
    print("on", flush=True)
    raise_if_interrupted()
    print("not remember_signals", flush=True)
print("after", flush=True)
"""


def run(**words):
    return subprocess.run(
        [sys.executable, "-c", DROPPED.format(**words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_what_a_finaliser_swallows_is_remembered(name):
    done = run(name=name, before="")
    assert done.stdout.split("\n") == ["on", ""]
    assert "Exception ignored" in done.stderr
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")


def test_an_ignored_ctrl_c_stays_ignored():
    done = run(name="SIGINT", before="signal.signal(signal.SIGINT, signal.SIG_IGN)")
    assert done.stdout.split("\n") == ["on", "not remember_signals", "after", ""]
    assert (done.returncode, done.stderr) == (0, "")


WORK = """
import time
from flows.interruption import ending_with_dvc, remember_signals

try:
    with remember_signals(), ending_with_dvc(every=0.05):
        print("begun", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    print("saved", flush=True)
"""
STARTER = "import subprocess, sys; subprocess.run(sys.argv[1:])"


@pytest.mark.parametrize("name", ["dvc", "another"])
def test_what_dvc_started_saves_its_work_when_dvc_is_killed(tmp_path, name):
    starter = tmp_path / name
    starter.write_text(STARTER)
    command = [sys.executable, str(starter), sys.executable, "-c", WORK]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, bufsize=1)
    with process:
        assert process.stdout.readline() == "begun\n"
        (child,) = psutil.Process(process.pid).children()
        os.kill(process.pid, signal.SIGKILL)
        if name == "dvc":
            assert process.stdout.readline() == "saved\n"
            child.wait(60)
        else:
            with pytest.raises(psutil.TimeoutExpired):
                child.wait(1)
            child.kill()
