"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def name() -> str:
    """The GPU if there is one, else the CPU; words that also make a file name."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    try:
        model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        model = None
    return model.group(1) if model else platform.processor() or platform.machine()


def describe() -> str:
    """One line for the head of a result; a load above 0.5 says that the machine was not quiet."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return (
        f"{name()}, {cores()} cores, torch {torch.__version__}, "
        f"Python {platform.python_version()}, load {load}"
    )
