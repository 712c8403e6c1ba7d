"""How well a device's calibrated prices predict seconds of training and latency of networks.

    python -m benchmarks.speed.cost_model [--quick]

Random networks of V1 and of V2 are measured in turn, several rounds, the quickest round of each
counting; a prediction is made from each code alone. Errors are relative to the measurement. The
alternative that is named is multiply-accumulates at one price, the best one in hindsight.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from benchmarks import machine
from blockqnn.network import build_network
from blockqnn.params import settings_from_dict
from blockqnn.settings import Settings
from blockqnn.space import Block
from blockqnn.training.calibration import LARGEST, calibrate
from blockqnn.training.device_prices import SECONDS, Request
from blockqnn.training.devices import resolve
from blockqnn.training.optimisation import create_optimizer
from blockqnn.training.precision import mixed_precision

IMAGES = {"num_classes": 10, "in_channels": 3, "image_size": 32}
NETWORKS, ROUNDS = 100, 5
SPACES = {"V1": {"version": "v1", "max_index": 12}, "V2": {"version": "v2", "max_index": 12}}
NETWORK = {"filters": [16, 32, 64], "repeats": 1}
RECIPE = {"epochs": 4, "batch": 64, "optimizer": "sgd", "learning_rate": 0.05}


class Measured:
    """A network, and its quickest training step and forward pass so far, in seconds."""

    def __init__(self, settings: Settings, block: Block, device: torch.device) -> None:
        size = IMAGES["image_size"]
        arguments = {name: value for name, value in IMAGES.items() if name != "image_size"}
        self.network = build_network(block, **NETWORK, **arguments)
        self.network.to(device).to(memory_format=torch.channels_last)
        self.device, self.recipe = device, settings.recipe
        self.optimizer = create_optimizer(self.network, self.recipe, 1e-3)
        images = torch.randn(self.recipe.batch, 3, size, size, device=device)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.labels = torch.arange(self.recipe.batch, device=device) % 10
        self.step = self.forward = float("inf")

    def measure(self) -> None:
        """Time two training steps and five forward passes."""
        self.network.train()
        self.step = min(self.step, *(self._seconds(self._train) for _ in range(2)))
        self.network.eval()
        with torch.inference_mode():
            self.forward = min(self.forward, *(self._seconds(self._pass) for _ in range(5)))

    def _train(self) -> None:
        with mixed_precision(self.device, self.recipe.precision):
            logits = self.network(self.images)
        self.optimizer.zero_grad(set_to_none=True)
        cross_entropy(logits.float(), self.labels).backward()
        self.optimizer.step()

    def _pass(self) -> None:
        with mixed_precision(self.device, self.recipe.precision):
            self.network(self.images[:1])

    def _seconds(self, run: Callable[[], None]) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        begun = time.perf_counter()
        run()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - begun


def sampled(settings: Settings, count: int) -> list[Block]:
    """Random blocks, other ones than a calibration has, of networks of usual size."""
    space, rng = settings.space.build(), np.random.default_rng(1)
    blocks: list[Block] = []
    while len(blocks) < count:
        block = space.sample(rng)
        if settings.network.cost(block, **IMAGES).macs <= LARGEST:
            blocks.append(block)
    return blocks


def errors(predicted: list[float], measured: list[float]) -> str:
    """Median, 90th percentile and median sign of relative errors, in percent."""
    relative = 100 * (np.array(predicted) / np.array(measured) - 1)
    off = np.abs(relative)
    return (
        f"median error {np.median(off):.1f} %, nine of ten within {np.quantile(off, 0.9):.0f} %, "
        f"median {np.median(relative):+.1f} %"
    )


def at_one_price(macs: list[int], measured: list[float]) -> list[float]:
    """Predictions from multiply-accumulates, whose price has no median error in hindsight."""
    price = np.median(np.array(measured) / np.array(macs))
    return [price * each for each in macs]


def main() -> None:
    """Print a line a space, for training and for latency."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="4 networks, 2 rounds")
    options = parser.parse_args()
    count, rounds, seconds = (4, 2, 1.0) if options.quick else (NETWORKS, ROUNDS, SECONDS)
    device = resolve("auto")
    print(f"cost model: {machine.describe()}; batch {RECIPE['batch']}", flush=True)
    for name, space in SPACES.items():
        tree = {"space": space, "network": NETWORK, "recipe": RECIPE}
        settings = settings_from_dict(tree)
        begun = time.monotonic()
        request = Request(settings=settings.to_dict(), device=str(device), threads=1, **IMAGES)
        prices = calibrate(request, seconds)
        took = time.monotonic() - begun
        blocks = sampled(settings, count)
        networks = [Measured(settings, block, device) for block in blocks]
        for _ in range(rounds):
            for network in networks:
                network.measure()
        costs = [settings.network.cost(block, **IMAGES) for block in blocks]
        macs = [cost.macs for cost in costs]
        runs = [list(settings.network.layers(block, **IMAGES)) for block in blocks]
        step = [network.step / settings.recipe.batch for network in networks]
        trained = [prices.seconds_an_image(layers) for layers in runs]
        forward = [1e3 * network.forward for network in networks]
        passed = [prices.milliseconds(layers) for layers in runs]
        print(f"{name}: {count} networks, calibrated in {took:.0f} s")
        for what, predicted, measured in (
            ("training", trained, step),
            ("latency", passed, forward),
        ):
            by_macs = errors(at_one_price(macs, measured), measured)
            print(f"  {what}: {errors(predicted, measured)}", flush=True)
            print(f"  {what} by multiply-accumulates: {by_macs}", flush=True)


if __name__ == "__main__":
    main()
