"""What the numbers were measured on."""

import os
import platform

import torch

from blockqnn.training.devices import device_name, resolve, usable_cores


def name() -> str:
    """The GPU if there is one, else the CPU; words that also make a file name."""
    return device_name(resolve("auto"))


def describe() -> str:
    """One line for the head of a result; a load above 0.5 says that the machine was not quiet."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return (
        f"{name()}, {usable_cores()} cores, torch {torch.__version__}, "
        f"Python {platform.python_version()}, load {load}"
    )
