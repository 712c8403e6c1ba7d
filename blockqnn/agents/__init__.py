"""Who proposes blocks: Q-learning (the product); random and evolution (the baselines)."""

from __future__ import annotations

from blockqnn.agents.evolution import Evolution
from blockqnn.agents.protocol import Agent
from blockqnn.agents.q_learning import QLearning
from blockqnn.agents.random_walk import RandomWalk
from blockqnn.agents.schedule import EpsilonSchedule
from blockqnn.config import AgentSettings, EvolutionSettings, QLearningSettings
from blockqnn.space import Space

__all__ = ["Agent", "EpsilonSchedule", "Evolution", "QLearning", "RandomWalk", "build_agent"]


def build_agent(space: Space, settings: AgentSettings, batch: int) -> Agent:
    """The agent that the settings name, knowing nothing yet; `batch` candidates an iteration."""
    if isinstance(settings, QLearningSettings):
        return QLearning(
            space,
            learning_rate=settings.learning_rate,
            discount=settings.discount,
            initial_q=settings.initial_q,
            replay=settings.replay,
            batch=batch,
        )
    if isinstance(settings, EvolutionSettings):
        return Evolution(space, population=settings.population, tournament=settings.tournament)
    return RandomWalk(space)
