"""The agent that the settings name."""

from collections.abc import Callable

from blockqnn.agents.dyna_q import DynaQ
from blockqnn.agents.evolution import Evolution
from blockqnn.agents.protocol import Agent
from blockqnn.agents.q_learning import QLearning
from blockqnn.agents.random_walk import RandomWalk
from blockqnn.settings import AgentSettings, DynaQSettings, EvolutionSettings, QLearningSettings
from blockqnn.space.design import Choices, D
from blockqnn.surrogate import Array


def build_agent(
    space: Choices[D], settings: AgentSettings, batch: int, encode: Callable[[D], Array]
) -> Agent[D]:
    """The agent that the settings name, which knows nothing yet.

    `batch` is the number of candidates in an iteration. `encode` makes a vector of a design, for
    agents with a surrogate.
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
