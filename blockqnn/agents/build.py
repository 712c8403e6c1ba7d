"""The agent that the settings name."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from blockqnn.agents.dyna_q import DynaQ
from blockqnn.agents.evolution import Evolution
from blockqnn.agents.protocol import Agent
from blockqnn.agents.q_learning import QLearning
from blockqnn.agents.random_walk import RandomWalk
from blockqnn.settings import AgentSettings, DynaQSettings, EvolutionSettings, QLearningSettings
from blockqnn.space.design import Choices, D


def build_agent(
    space: Choices[D],
    settings: AgentSettings,
    batch: int,
    encode: Callable[[D], NDArray[np.float64]],
) -> Agent[D]:
    """The agent that the settings name, knowing nothing yet; `batch` candidates are an iteration,
    `encode` makes a vector of a design for those that have a model.
    """
    if isinstance(settings, QLearningSettings):
        return QLearning(
            space,
            learning_rate=settings.learning_rate,
            discount=settings.discount,
            initial_q=settings.initial_q,
            replay=settings.replay,
            batch=batch,
        )
    if isinstance(settings, DynaQSettings):
        return DynaQ(space, encode, imagined=settings.imagined)
    if isinstance(settings, EvolutionSettings):
        return Evolution(space, population=settings.population, tournament=settings.tournament)
    return RandomWalk(space)
