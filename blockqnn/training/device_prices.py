"""The prices of layers on a device of this machine, measured by a process of its own."""

import json
import os
import subprocess
import sys
from typing import TypedDict

from blockqnn.cost import DeviceCost
from blockqnn.errors import SearchError
from blockqnn.training.keep_memory import KEEP_MEMORY

SECONDS = 40.0
"""Seconds of measuring; importing torch and the end of the last round come on top."""


class Request(TypedDict):
    """What is to be measured: a search's networks on a device."""

    settings: dict[str, object]
    device: str
    threads: int
    num_classes: int
    in_channels: int
    image_size: int


def measured_prices(request: Request) -> DeviceCost:
    """Measure a device, which takes less than a minute; the settings say what networks it trains.

    The process keeps its memory as those that train do. Raises `SearchError` if it fails.
    """
    threads = str(request["threads"])
    done = subprocess.run(
        [sys.executable, "-m", "blockqnn.training.calibration", str(SECONDS)],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env={**os.environ, **KEEP_MEMORY, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise SearchError(
            f"what layers cost on device {request['device']} could not be measured ({last[0]}): "
            "mend that, or do without network.match, budgets and trade-offs in seconds or latency"
        )
    return DeviceCost.from_dict(json.loads(done.stdout))
