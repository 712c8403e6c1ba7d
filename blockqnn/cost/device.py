"""What a network costs on one device: seconds of training and milliseconds of a forward pass.

The time of a layer is a sum of a few terms, such as so many picoseconds a multiply-accumulate and
so many a value read; a network's time is the sum of its layers'. The prices are fitted to layers
measured on the device (`blockqnn.training.calibration`), as ProxylessNAS (Cai et al., 2019) does
with a table of measured layers. It needs no torch.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Self

import numpy as np

from blockqnn.cost.layers import NetworkLayer, Run

LANES = 16
"""Channels in a register: what processors of 512 bits multiply at a time, and GPUs in half."""

Prices = Mapping[str, Sequence[float]]
"""Microseconds for one unit of each of a kind of layer's terms, by the kind with its kernel."""


def layer_kind(layer: NetworkLayer) -> str:
    """The name under which the prices of layers like this one are kept, such as `pcc 3`."""
    return f"{layer.kind} {layer.kernel}" if layer.kernel else layer.kind


def layer_terms(layer: NetworkLayer) -> list[float]:
    """The terms of one layer for one image; each has a price on a device, the last a layer.

    Multiply-accumulates are priced as they are and as whole registers of channels hold them.
    """
    kind, kernel, width, made, size = layer
    pixels = size * size
    whole = _whole(width) * _whole(made) * pixels
    if kind == "pcc":
        area = kernel * kernel
        return [area * width * made * pixels, area * whole, width * pixels, made * pixels, 1.0]
    if kind == "separable":
        return [width * made * pixels, whole, width * pixels, made * pixels, 1.0]
    if kind == "head":
        return [width * pixels, width * made, 1.0]
    return [made * pixels, 1.0]


def _whole(channels: int) -> int:
    """The least multiple of a register's channels that holds so many."""
    return -(-channels // LANES) * LANES


def update_terms(layer: NetworkLayer) -> list[float]:
    """The terms of one optimiser step of a layer's weights, the last a layer; none where it has no
    weights. The second is for optimisers that multiply matrices, such as Muon.
    """
    kind, kernel, width, made, _ = layer
    if kind == "separable":
        weights, reads = width * (kernel * kernel + made), width
    elif kind in ("stem", "pcc", "head"):
        reads = (kernel or 1) ** 2 * width
        weights = reads * made
    else:
        return []
    return [weights, weights * min(reads, made), 1.0]


Terms = Callable[[NetworkLayer], list[float]]


def fit_prices(
    layers: Sequence[NetworkLayer], times: Sequence[float], terms: Terms = layer_terms
) -> dict[str, list[float]]:
    """Return the prices, none negative, whose sums come relatively closest to measured times.

    `times` has the microseconds of each layer for one image, or for whatever has the `terms`.
    """
    rows: dict[str, list[tuple[list[float], float]]] = {}
    for layer, time in zip(layers, times, strict=True):
        if found := terms(layer):
            rows.setdefault(layer_kind(layer), []).append((found, time))
    prices = {}
    for kind, measured in sorted(rows.items()):
        prices[kind] = _solved(*zip(*measured, strict=True))
    return prices


def among_others(
    prices: Prices,
    networks: Sequence[Sequence[Run]],
    times: Sequence[float],
    terms: Terms = layer_terms,
) -> dict[str, list[float]]:
    """Return the prices as they are in networks, from those of layers that were measured alone.

    `times` has the microseconds of each network for one image. What a layer takes whatever its
    size, and what it takes beyond that, is raised or lowered for all kinds alike.
    """
    fixed = {kind: [*(0.0 for _ in of[1:]), of[-1]] for kind, of in prices.items()}
    rows = [(priced(fixed, network, terms), priced(prices, network, terms)) for network in networks]
    each, beyond = _solved([[one, whole - one] for one, whole in rows], times)
    return {kind: [*(beyond * p for p in of[:-1]), each * of[-1]] for kind, of in prices.items()}


def _solved(terms: Sequence[Sequence[float]], times: Sequence[float]) -> list[float]:
    """The prices, none negative, with the least squares of relative errors."""
    from scipy.optimize import nnls  # half a second to import, and only calibrations need it

    relative = np.array(terms) / np.array(times)[:, None]
    scale = np.maximum(relative.max(axis=0), 1e-300)  # terms differ by orders of magnitude
    solution, _ = nnls(relative / scale, np.ones(len(relative)))
    return [float(price) for price in solution / scale]


def priced(prices: Prices, layers: Iterable[Run], terms: Terms = layer_terms) -> float:
    """The microseconds of a network's layers for one image, or for whatever has the `terms`.

    Raises `KeyError` that names a kind of layer that has no price.
    """
    total = 0.0
    for count, run in layers:
        for layer in run:
            if found := terms(layer):
                each = zip(prices[layer_kind(layer)], found, strict=True)
                total += count * sum(price * term for price, term in each)
    return total


@dataclass(frozen=True, kw_only=True)
class DeviceCost:
    """The prices of layers on one device, for trainings and for forward passes.

    The same device computes at another speed in another precision, with other batches or threads:
    these are the ones that the prices were measured with.
    """

    device: str
    """Name of the device's model."""
    precision: str
    """float32, bfloat16 or float16."""
    threads: int | None
    """CPU threads of one training; None on a GPU."""
    batch: int
    """Images in a training step."""
    latency_batch: int
    """Images in a forward pass."""
    training: Prices
    """Microseconds of a training step, by image."""
    latency: Prices
    """Microseconds of a forward pass, by image."""
    update: Prices
    """Microseconds of the optimiser's share of a step, by image, for the terms of
    `update_terms`."""

    def seconds_an_image(self, layers: Sequence[Run]) -> float:
        """Seconds that a training takes for each image: forward, backward, and its share of the
        optimiser's step.

        Raises `KeyError` that names a kind of layer that was not measured.
        """
        update = priced(self.update, layers, update_terms)
        return 1e-6 * (priced(self.training, layers) + update)

    def milliseconds(self, layers: Iterable[Run]) -> float:
        """Milliseconds of one forward pass of `latency_batch` images.

        Raises `KeyError` that names a kind of layer that was not measured.
        """
        return 1e-3 * self.latency_batch * priced(self.latency, layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; raises TypeError or ValueError for anything else."""
        cost = cls(**values)
        parts = (cost.training, cost.latency, cost.update)
        if not all(0 <= price < math.inf for of in parts for price in chain(*of.values())):
            raise ValueError("a price is no number from 0 on")
        return cost
