"""TrainingProcesses in worker processes, watched and killed."""

import json
import time
from pathlib import Path

from blockqnn.search.candidate_files import candidate_directory
from blockqnn.workers.protocol import candidate_task

CODE = "(1,1,3,0,0)(2,1,3,1,0)(3,1,3,2,0)(4,7,0,0,0)"


ONE = {"kind": "local", "count": 1}


PATIENCE = 120.0


def wait_for(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.002)
    return result


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def holder(directory, number=0):
    """The process that trains a candidate, once it does."""
    lock = candidate_directory(directory, number) / "lock"
    content = wait_for(lambda: lock.exists() and lock.read_text(), "a training")
    return json.loads(content)["pid"]


def in_background(workers, number=0, code=CODE, rule=None):
    """A training under way in a thread."""
    from concurrent.futures import ThreadPoolExecutor

    executor = ThreadPoolExecutor(1)
    future = executor.submit(workers.train, {**candidate_task(number, code), "rule": rule})
    executor.shutdown(wait=False)
    return future


PARENT = """
import json, sys
from pathlib import Path
from blockqnn.params import settings_from_dict
from blockqnn.workers.open import open_workers
from blockqnn.workers.protocol import candidate_task
workers = open_workers(settings_from_dict(json.loads(sys.argv[1])), Path(sys.argv[2]))
workers.train(candidate_task(0, sys.argv[3]))
"""
