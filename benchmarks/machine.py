"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform

import torch

from blockqnn.devices import device_name, resolve


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def name() -> str:
    """The GPU if there is one, else the CPU; words that also make a file name."""
    return device_name(resolve("auto"))


def describe() -> str:
    """One line for the head of a result; a load above 0.5 says that the machine was not quiet."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return (
        f"{name()}, {cores()} cores, torch {torch.__version__}, "
        f"Python {platform.python_version()}, load {load}"
    )
