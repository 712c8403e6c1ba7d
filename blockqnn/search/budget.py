"""Which networks a search may not train, decided from their cost alone."""

from blockqnn.cost import Cost
from blockqnn.settings import Budget, Recipe


def over_budget(cost: Cost, budget: Budget, recipe: Recipe) -> str:
    """Why a network may not be trained, decided from its cost alone; empty when it may."""
    limits = {
        "macs": ("multiply-accumulates", cost.macs, budget.macs),
        "parameters": ("parameters", cost.parameters, budget.parameters),
        "memory": ("bytes of memory", step_memory(cost, recipe), budget.memory),
    }
    for name, (what, needed, allowed) in limits.items():
        if allowed is not None and needed > allowed:
            return f"needs {needed:,} {what}, budget.{name} is {allowed:,}"
    return ""


def step_memory(cost: Cost, recipe: Recipe) -> int:
    """Bytes of one training step, estimated: weight, gradient and two moments; all activations."""
    return 16 * cost.parameters + recipe.batch * cost.activation_bytes
