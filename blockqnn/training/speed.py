"""How fast a network is on the device at hand: latency of a batch, throughput."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from blockqnn.training.devices import device_name, out_of_memory
from blockqnn.training.precision import mixed_precision, resolve_precision

WARM_UP = 3
"""Passes before the first measured one: kernels are chosen, memory is taken."""
WARM_UP_SECONDS = 0.5
"""At least so long, so that clocks have risen, but no more than ten times as many passes."""

MOST_SECONDS, FEWEST = 30.0, 5
"""A slow network is measured for so long, but so many times at least."""


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
    """Time forward passes of random images, one row a batch size.

    A row has device (its name), threads (of the CPU; None on a GPU), precision (what `auto` came
    to), batch, milliseconds (the median of `repeats` passes, fewer where they would take more than
    half a minute), low and high (their 5th and 95th percentile), images_per_second (of the median),
    passes (how many were measured). Images are channels last and lie on the device
    already; on a GPU its own events measure, synchronised. A batch that does not fit into memory
    has None for its numbers and a reason. The network is moved to `device`.
    """
    network.to(device).to(memory_format=torch.channels_last)
    was_training = network.training
    network.eval()
    rows = []
    for batch in batches:
        row: dict[str, Any] = {
            "device": device_name(device),
            "threads": torch.get_num_threads() if device.type == "cpu" else None,
            "precision": resolve_precision(device, precision),
            "batch": batch,
        }
        try:
            times = _times(
                network, (batch, in_channels, image_size, image_size), row, device, repeats
            )
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            times = None
        if times is None and device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.empty_cache()
        rows.append({**row, **_summary(times, batch)})
    network.train(was_training)
    return rows


def _summary(times: Sequence[float] | None, batch: int) -> dict[str, Any]:
    """Medians and percentiles of times in milliseconds."""
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


def _times(
    network: nn.Module,
    shape: tuple[int, int, int, int],
    row: dict[str, Any],
    device: torch.device,
    repeats: int,
) -> list[float]:
    """Milliseconds of each pass."""
    draws = torch.Generator(device).manual_seed(0)
    images = torch.randn(shape, generator=draws, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), mixed_precision(device, row["precision"]):

        def run() -> object:
            return network(images)

        once = partial(_on_gpu, device) if device.type == "cuda" else partial(_on_host, device)
        begun, passes = time.perf_counter(), 0
        while passes < WARM_UP or (
            passes < 10 * WARM_UP and time.perf_counter() - begun < WARM_UP_SECONDS
        ):
            once(run)
            passes += 1
        times: list[float] = []
        begun = time.perf_counter()
        while len(times) < repeats and (
            len(times) < FEWEST or time.perf_counter() - begun < MOST_SECONDS
        ):
            times.append(once(run))
        return times


def _on_host(device: torch.device, run: Callable[[], object]) -> float:
    """By the host's clock; where the device works by itself, until it is done."""
    wait = torch.mps.synchronize if device.type == "mps" else lambda: None
    wait()
    begun = time.perf_counter()
    run()
    wait()
    return 1000 * (time.perf_counter() - begun)


def _on_gpu(device: torch.device, run: Callable[[], object]) -> float:
    """From one event to the next on the device, with everything before them done."""
    with torch.cuda.device(device):  # events and synchronize mean the current device
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        before.record()
        run()
        after.record()
        after.synchronize()
        return float(before.elapsed_time(after))
