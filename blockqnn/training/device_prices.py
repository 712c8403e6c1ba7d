"""What layers and models cost on a device of this machine, measured by a process of its own."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
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
    spaces: NotRequired[list[str]]
    """Versions of the spaces of whose blocks the networks are; that of the settings if left out."""
    device: str
    threads: int
    num_classes: int
    in_channels: int
    image_size: int


class WidthRequest(Request):
    """Which timm model is to be matched with the network of block plain, and by what."""

    name: str
    match: str


def measured_prices(request: Request) -> DeviceCost:
    """Measure a device, which takes less than a minute; the settings say what networks it trains.

    The process keeps its memory as those that train do. Raises `SearchError` if it fails.
    """
    log.warning(
        "what layers cost on device %s is measured, once, for %.0f seconds",
        request["device"],
        SECONDS,
    )
    done = _run(["blockqnn.training.calibration", str(SECONDS)], request)
    if done.returncode:
        raise SearchError(
            f"what layers cost on device {request['device']} could not be measured "
            f"({_last_words(done)}): mend that, or do without network.match, budgets and "
            "trade-offs in seconds or latency"
        )
    return DeviceCost.from_dict(json.loads(done.stdout))


def matched_widths(request: WidthRequest) -> tuple[tuple[int, ...], float]:
    """The widths of a timm model's stages with which it costs what block plain's network does, and
    its cost beside that one's.

    Raises `SettingsError` for a model whose widths cannot be chosen, and `SearchError` if the
    device cannot be measured.
    """
    log.warning(
        "how wide %s has to be on device %s is found out, once", request["name"], request["device"]
    )
    done = _run(["blockqnn.training.comparator_width"], request)
    if done.returncode:
        raise SearchError(
            f"how wide {request['name']} has to be on device {request['device']} could not be "
            f"measured ({_last_words(done)}): mend that, or give network.match none"
        )
    found = json.loads(done.stdout)
    if "error" in found:
        raise SettingsError(found["error"])
    return tuple(found["widths"]), float(found["ratio"])


def _run(module: Sequence[str], request: Request) -> subprocess.CompletedProcess[str]:
    threads = str(request["threads"])
    return subprocess.run(
        [sys.executable, "-m", *module],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env={**os.environ, **KEEP_MEMORY, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
    )


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
