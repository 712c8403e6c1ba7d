"""How fast a network is on a device: the latency of a batch, and images a second."""

import os
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn

from blockqnn.training.devices import device_name, out_of_memory
from blockqnn.training.precision import mixed_precision, resolve_precision

WARM_UP = 3
"""Fewest passes before the measured ones, in which kernels are chosen and memory is taken."""
WARM_UP_SECONDS = 0.5
"""Seconds of warming up, in which the device's clock rate rises, unless ten times `WARM_UP` passes
are over earlier."""

MOST_SECONDS = 30.0
"""Seconds after which no more passes of a slow network are measured."""
FEWEST = 5
"""Passes that are measured however slow the network is."""
MOST_BUSY = 0.9
"""Share of a machine's cores that may be at work, ours and others', before times are doubted."""


def measure_speed(
    network: nn.Module,
    *,
    batches: Sequence[int],
    in_channels: int,
    image_size: int,
    device: torch.device,
    precision: str = "auto",
    repeats: int = 20,
) -> list[dict[str, Any]]:
    """Time forward passes of random images that lie on the device, channels last.

    Returns a row for each batch size: device (its name), threads (of the CPU; None on a GPU),
    precision (what `auto` came to), batch, milliseconds (the median of `repeats` passes, or of
    fewer if they would take more than half a minute), low and high (the 5th and 95th percentile),
    images_per_second (by the median), passes (how many were measured), and busy (whether other
    processes left too few cores for it meanwhile). If a batch does not fit into memory, its numbers
    are None and it has a reason. The network is moved to `device`.
    """
    network.to(device).to(memory_format=torch.channels_last)
    was_training = network.training
    network.eval()
    rows = []
    for batch in batches:
        shape = (batch, in_channels, image_size, image_size)
        before = _busy_seconds()
        try:
            times = _times(network, shape, device, precision, repeats)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            times = None
        if times is None and device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.empty_cache()
        threads = torch.get_num_threads() if device.type == "cpu" else None
        row = {
            "device": device_name(device),
            "threads": threads,
            "precision": resolve_precision(device, precision),
            "batch": batch,
        }
        busy = _others(before) + (threads or 1) > MOST_BUSY * (os.cpu_count() or 1)
        rows.append({**row, **_summary(times, batch), "busy": busy})
    network.train(was_training)
    return rows


def _summary(times: Sequence[float] | None, batch: int) -> dict[str, Any]:
    """Median, percentiles and number of times in milliseconds; None ran out of memory."""
    if times is None:
        empty = dict.fromkeys(("milliseconds", "low", "high", "images_per_second"))
        return {**empty, "reason": "out of memory"}
    low, high = np.percentile(times, [5, 95])
    middle = median(times)
    return {
        "milliseconds": middle,
        "low": float(low),
        "high": float(high),
        "images_per_second": 1000 * batch / middle,
        "passes": len(times),
    }


def _busy_seconds() -> tuple[float, float, float]:
    """The time, seconds of all cores that were worked by anybody until then, and by us."""
    cores, own = psutil.cpu_times(), time.process_time()
    idle = cores.idle + getattr(cores, "iowait", 0.0) + getattr(cores, "guest", 0.0)
    return time.monotonic(), sum(cores) - idle, own


def _others(before: tuple[float, float, float]) -> float:
    """Cores that other processes have kept busy since then, on average."""
    seconds, all_busy, own = (b - a for a, b in zip(before, _busy_seconds(), strict=True))
    return max(0.0, all_busy - own) / max(seconds, 1e-9)


def _times(
    network: nn.Module,
    shape: tuple[int, int, int, int],
    device: torch.device,
    precision: str,
    repeats: int,
) -> list[float]:
    """Milliseconds of each measured pass of images of a shape `(N, C, H, W)`."""
    draws = torch.Generator(device).manual_seed(0)
    images = torch.randn(shape, generator=draws, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    time_one = _on_gpu if device.type == "cuda" else _on_host

    def passes(least: int, most: int, seconds: float) -> list[float]:
        times: list[float] = []
        begun = time.perf_counter()
        while len(times) < least or (len(times) < most and time.perf_counter() - begun < seconds):
            times.append(time_one(device, lambda: network(images)))
        return times

    with torch.inference_mode(), mixed_precision(device, precision):
        passes(WARM_UP, 10 * WARM_UP, WARM_UP_SECONDS)
        return passes(min(FEWEST, repeats), repeats, MOST_SECONDS)


def _on_host(device: torch.device, run: Callable[[], object]) -> float:
    """Milliseconds by the host's clock until the device has finished."""
    wait = torch.mps.synchronize if device.type == "mps" else lambda: None
    wait()
    begun = time.perf_counter()
    run()
    wait()
    return 1000 * (time.perf_counter() - begun)


def _on_gpu(device: torch.device, run: Callable[[], object]) -> float:
    """Milliseconds between two events on a GPU that had nothing else to do."""
    with torch.cuda.device(device):  # events and synchronize mean the current device
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        before.record()
        run()
        after.record()
        after.synchronize()
        return float(before.elapsed_time(after))
