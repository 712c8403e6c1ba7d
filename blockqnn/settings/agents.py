"""Settings of the agents, the section `agent` of params.yaml."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Discriminator

from blockqnn.settings.checks import MOST, Section


@dataclass(frozen=True, kw_only=True)
class QLearningSettings(Section, section="agent"):
    """Tabular Q-learning with experience replay (paper section 3.2)."""

    kind: Literal["q_learning"] = "q_learning"
    learning_rate: float = 0.01
    """Step size of a Q update, alpha in the paper."""
    discount: float = 1.0
    """Discount factor of later rewards, gamma in the paper."""
    initial_q: float = 0.5
    """Q value of an action that was never tried; rewards are learned as percent / 100."""
    replay: int = 64
    """Trajectories drawn from the replay memory after each iteration."""

    def __post_init__(self) -> None:
        rate = 0 < self.learning_rate <= 1
        self.require("learning_rate", rate, "give more than 0 and at most 1")
        self.require("discount", 0 <= self.discount <= 1, "give 0 to 1")
        self.require("initial_q", math.isfinite(self.initial_q), "give a number")
        self.require("replay", 0 <= self.replay <= MOST, f"give 0 to {MOST:,}")


@dataclass(frozen=True, kw_only=True)
class RandomSettings(Section, section="agent"):
    """Uniform random walks: the baseline."""

    kind: Literal["random"] = "random"


@dataclass(frozen=True, kw_only=True)
class EvolutionSettings(Section, section="agent"):
    """Regularised evolution (Real et al. 2019): the stronger baseline."""

    kind: Literal["evolution"] = "evolution"
    population: int = 100
    """Latest candidates, one of which is the parent of the next."""
    tournament: int = 25
    """Candidates drawn for one tournament; the best of them is the parent."""

    def __post_init__(self) -> None:
        self.require("population", 2 <= self.population <= MOST, f"give 2 to {MOST:,}")
        fits = 1 <= self.tournament <= self.population
        self.require("tournament", fits, "give 1 to agent.population")


@dataclass(frozen=True, kw_only=True)
class DynaQSettings(Section, section="agent"):
    """Q-learning that learns mostly from predicted rewards: the faster version, our reading."""

    kind: Literal["dyna_q"] = "dyna_q"
    imagined: int = 512
    """Trajectories imagined before a proposal; the surrogate predicts their rewards."""

    def __post_init__(self) -> None:
        self.require("imagined", 1 <= self.imagined <= MOST, f"give 1 to {MOST:,}")


AgentSettings = Annotated[
    QLearningSettings | RandomSettings | EvolutionSettings | DynaQSettings, Discriminator("kind")
]
