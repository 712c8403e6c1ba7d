"""What the networks of a search cost, how wide they are and which may be trained, from their codes
alone.
"""

from dataclasses import replace

from blockqnn.cost import Cost, DeviceCost
from blockqnn.cost.match import TOLERANCE
from blockqnn.search.records import Task
from blockqnn.settings import Budget, Recipe, Settings
from blockqnn.space import AS_SET, Block, Shape
from blockqnn.zoo import BLOCKS


class Costs:
    """The costs of one search's networks, on a device with prices if the search needs them."""

    def __init__(self, settings: Settings, task: Task, prices: DeviceCost | None) -> None:
        self._settings = settings
        self._prices = prices
        self._images = {
            "num_classes": task.num_classes,
            "in_channels": task.in_channels,
            "image_size": task.image_size,
        }
        self._train_images = task.train_images
        self.plain = self.of(BLOCKS["plain"])
        """That of block plain's network, beside which others are held."""

    def of(self, block: Block, shape: Shape = AS_SET) -> Cost:
        """The cost of the network of a block."""
        network = self._settings.network.shaped(shape)
        return network.cost(block, prices=self._prices, **self._images)

    def matched(self, block: Block, shape: Shape) -> Shape:
        """The shape with the filters by which the block's network costs what block plain's does;
        as it is if networks are not matched.
        """
        network = self._settings.network
        if network.match == "none":
            return shape
        like = BLOCKS["plain"]
        found = network.matched(block, like, shape=shape, prices=self._prices, **self._images)
        return replace(shape, filters=found.filters)

    def over_budget(self, cost: Cost) -> str:
        """Why a network with that cost may not be trained; empty when it may."""
        settings, seconds = self._settings, self._seconds(cost)
        if settings.judges_measured_latency:
            cost = replace(cost, milliseconds=None)  # the worker finds out
        reason = over_budget(cost, settings.budget, settings.recipe, self.plain, seconds)
        return reason or self._over_match(cost)

    def _seconds(self, cost: Cost) -> float | None:
        """Seconds of a candidate's training, None where the device has no prices."""
        if cost.seconds_an_image is None:
            return None
        return cost.seconds_an_image * self._train_images * self._settings.recipe.epochs

    def _over_match(self, cost: Cost) -> str:
        network = self._settings.network
        if network.match == "none":
            return ""
        plain = network.reference.cost(BLOCKS["plain"], prices=self._prices, **self._images)
        ratio = network.matched_cost(cost) / network.matched_cost(plain)
        if ratio <= 1 + TOLERANCE:
            return ""
        return (
            f"takes {ratio:.3g} times the {network.match} of block plain's network, whatever its "
            "filters are; network.match wants as much"
        )


def over_budget(
    cost: Cost, budget: Budget, recipe: Recipe, plain: Cost, seconds: float | None = None
) -> str:
    """Why a network may not be trained, decided from its cost alone; empty when it may.

    `plain` is the cost of block plain's network, `seconds` the time of the whole training. What is
    not known of a cost is not judged.
    """
    # A training step has the weights, their gradients and two moments, and all activations.
    step = 16 * cost.parameters + recipe.batch * cost.activation_bytes
    limits: dict[str, tuple[str, float | None, float | None]] = {
        "macs": ("multiply-accumulates", cost.macs, budget.macs),
        "parameters": ("parameters", cost.parameters, budget.parameters),
        "memory": ("bytes of memory", step, budget.memory),
        "times_plain": (
            "times the multiply-accumulates of block plain",
            cost.macs / plain.macs,
            budget.times_plain,
        ),
        "seconds": ("seconds of training", seconds, budget.seconds),
        "latency": ("ms for a forward pass", cost.milliseconds, budget.latency),
    }
    for name, (what, needed, allowed) in limits.items():
        if needed is not None and allowed is not None and needed > allowed:
            number = f"{needed:,}" if isinstance(needed, int) else f"{needed:.6g}"
            return f"needs {number} {what}, budget.{name} is {allowed:,}"
    return ""
