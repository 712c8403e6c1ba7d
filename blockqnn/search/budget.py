"""Which networks a search may not train, decided from their cost alone."""

from blockqnn.cost import Cost
from blockqnn.settings import Budget, Recipe


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
