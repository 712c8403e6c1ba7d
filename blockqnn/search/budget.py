"""Which networks a search may not train, decided from their cost alone."""

from blockqnn.cost import Cost
from blockqnn.settings import Budget, Recipe


def over_budget(cost: Cost, budget: Budget, recipe: Recipe) -> str:
    """Why a network may not be trained, decided from its cost alone; empty when it may."""
    # A training step has the weights, their gradients and two moments, and all activations.
    step = 16 * cost.parameters + recipe.batch * cost.activation_bytes
    limits = {
        "macs": ("multiply-accumulates", cost.macs, budget.macs),
        "parameters": ("parameters", cost.parameters, budget.parameters),
        "memory": ("bytes of memory", step, budget.memory),
    }
    for name, (what, needed, allowed) in limits.items():
        if allowed is not None and needed > allowed:
            return f"needs {needed:,} {what}, budget.{name} is {allowed:,}"
    return ""
