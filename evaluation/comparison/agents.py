"""The agents of a comparison, from texts such as `q_learning:learning_rate=0.1`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from blockqnn.agents import Agent, EpsilonSchedule, build_agent
from blockqnn.errors import SettingsError
from blockqnn.params import settings_from_dict
from blockqnn.settings import AgentSettings
from blockqnn.settings.checks import require
from blockqnn.space.design import Choices, D

Unit = Literal["evaluations", "trainings"]

TPE = "tpe"
"""Name of Optuna's agent."""
AGENTS = ("dyna_q", "q_learning", "evolution", "random", TPE)
"""Names of the agents that can be compared."""
BATCHES = {"dyna_q": 5}
"""Evaluations between two lessons of an agent; 1 for an agent that is not named."""
FIRST = {"dyna_q": 10}
"""Evaluations with epsilon 1 from which an agent's model begins; 0 for an agent not named."""


@dataclass(frozen=True)
class AgentSpec:
    """An agent's settings, and how a comparison uses it."""

    label: str
    settings: AgentSettings | None
    """None for Optuna's TPE."""
    batch: int = 1
    """Evaluations between two lessons."""
    first: int = 0
    """Evaluations with epsilon 1 at the beginning."""

    def epsilon(self, done: int, budget: int) -> float:
        """The epsilon after `done` evaluations.

        Q-learning has the paper's schedule, stretched over the budget. The other agents explore by
        themselves and have 0.
        """
        if done < self.first:
            return 1.0
        if self.settings is None or self.settings.kind != "q_learning":
            return 0.0
        schedule = EpsilonSchedule.paper()
        return schedule.at(done * schedule.iterations // budget)

    def build(self, space: Choices[D], encode: Callable[[D], NDArray[np.float64]]) -> Agent[D]:
        """A new agent, which has learned nothing yet."""
        if self.settings is None:
            from evaluation.comparison.tpe import Tpe

            return Tpe(space)
        return build_agent(space, self.settings, self.batch, encode)


def agent_specs(texts: Sequence[str], budget: int) -> list[AgentSpec]:
    """The agents of some texts. Raises `SettingsError`.

    A text is an agent's name, followed by settings of that agent, `batch` or `first`, each after a
    colon. Unless they are named, evolution's population is an eighth of the budget, at most 100,
    and its tournament a fifth of the population.
    """
    found = [_spec(text, budget) for text in texts]
    labels = [spec.label for spec in found]
    for label in labels:
        require(labels.count(label) == 1, "agents", label, "name each once, or with other settings")
    return found


def _spec(text: str, budget: int) -> AgentSpec:
    name, *assignments = text.split(":")
    require(name in AGENTS, "agents", name, f"choose of {', '.join(AGENTS)}")
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        remedy = "write name:setting=value, say q_learning:learning_rate=0.1"
        require(bool(equals and key), "agents", text, remedy)
        values[key] = _number(text, value)
    batch = _count(text, values, "batch", min(BATCHES.get(name, 1), budget), 1, budget)
    first = _count(text, values, "first", min(FIRST.get(name, 0), budget), 0, budget)
    if name == TPE:
        require(not values, "agents", text, "tpe has no settings but batch and first")
        require(first == 0, "agents", text, "tpe begins with ten of its own; leave first out")
        return AgentSpec(text, None, batch)
    if name == "evolution":
        population = values.setdefault("population", min(100, max(10, budget // 8)))
        if type(population) is int:
            values.setdefault("tournament", max(2, population // 5))
    settings = settings_from_dict({"agent": {"kind": name, **values}}).agent
    return AgentSpec(text, settings, batch, first)


def _count(
    text: str, values: dict[str, Any], name: str, default: int, least: int, most: int
) -> int:
    value = values.pop(name, default)
    remedy = f"give {name} a whole number from {least} to {most:,}, the budget"
    require(type(value) is int and least <= value <= most, "agents", text, remedy)
    return int(value)


def _number(text: str, value: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            pass
    raise SettingsError(f"agents is {text!r}: {value!r} is no number, and all settings are")
