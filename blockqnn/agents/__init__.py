"""The agents, which propose blocks: Q-learning as published, Dyna-Q, evolution, random walks.

They may import the search space, the settings and the surrogate, and need no torch.
"""

from blockqnn.agents.build import build_agent
from blockqnn.agents.dyna_q import DynaQ
from blockqnn.agents.evolution import Evolution
from blockqnn.agents.protocol import Agent
from blockqnn.agents.q_learning import QLearning
from blockqnn.agents.random_walk import RandomWalk
from blockqnn.agents.schedule import EpsilonSchedule

__all__ = ["Agent", "DynaQ", "EpsilonSchedule", "Evolution", "QLearning", "RandomWalk"]
__all__ += ["build_agent"]
