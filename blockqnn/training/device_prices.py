"""What layers and models cost on a device of this machine, measured by a process of its own."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from blockqnn.cost import DeviceCost
from blockqnn.errors import SearchError, SettingsError
from blockqnn.training.keep_memory import KEEP_MEMORY

log = logging.getLogger(__name__)

SECONDS = 40.0
"""Seconds of measuring; importing torch and the end of the last round come on top."""


class Request(TypedDict):
    """What is to be measured: a search's networks on a device."""

    settings: dict[str, Any]
    device: str
    threads: int
    num_classes: int
    in_channels: int
    image_size: int


class WidthRequest(Request):
    """Which network is to be matched with that of block plain, and by what: a timm model by its
    `name`, or a block."""

    match: str
    name: NotRequired[str]
    block: NotRequired[str]
    shape: NotRequired[dict[str, Any]]
    """What the block's network has of its own: a `Shape` as plain values."""
    match_repeats: NotRequired[list[int]]
    """Blocks of a stage that a block's network may have instead of those of the settings."""


def measured_prices(request: Request, seconds: float | None = None) -> DeviceCost:
    """Measure a device, which takes less than a minute; the settings say what networks it trains.

    The process keeps its memory as those that train do. Raises `SearchError` if it fails.
    """
    seconds = SECONDS if seconds is None else seconds
    log.warning(
        "what layers cost on device %s is measured, once, for %.0f seconds",
        request["device"],
        seconds,
    )
    done = run_measurement(["blockqnn.training.calibration", str(seconds)], request)
    if done.returncode:
        raise SearchError(
            f"what layers cost on device {request['device']} could not be measured "
            f"({last_words(done)}): mend that, or do without network.match, budgets and "
            "trade-offs in seconds or latency"
        )
    return DeviceCost.from_dict(json.loads(done.stdout))


def matched_widths(request: WidthRequest) -> dict[str, Any]:
    """The `widths` of a network's stages with which it costs what block plain's network does, of a
    block's the `repeats` too; and the `ratio` of the two costs.

    Raises `SettingsError` for a model whose widths cannot be chosen, and `SearchError` if the
    device cannot be measured.
    """
    name = request.get("name") or f"the network of {request.get('block')}"
    log.warning("how wide %s has to be on device %s is found out, once", name, request["device"])
    done = run_measurement(["blockqnn.training.network_width"], request)
    if done.returncode:
        raise SearchError(
            f"how wide {name} has to be on device {request['device']} could not be measured "
            f"({last_words(done)}): mend that, or give network.match none"
        )
    found: dict[str, Any] = json.loads(done.stdout)
    if "error" in found:
        raise SettingsError(found["error"])
    return found


def run_measurement(
    module: Sequence[str], request: Mapping[str, Any]
) -> subprocess.CompletedProcess[str]:
    """Run a module with its arguments in a process of its own, which keeps its memory as those do
    that train, with the `threads` of the request, which it reads from standard input.
    """
    threads = str(request["threads"])
    return subprocess.run(
        [sys.executable, "-m", *module],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env={**os.environ, **KEEP_MEMORY, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
    )


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of what a process that failed said, else its exit status."""
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
