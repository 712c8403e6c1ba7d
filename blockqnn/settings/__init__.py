"""Settings as frozen dataclasses that check themselves: one class for each section of params.yaml.

They may import the search space and its costs, and need no torch. `blockqnn.params` reads them.
"""

from blockqnn.settings.agents import (
    AgentSettings,
    DynaQSettings,
    EvolutionSettings,
    QLearningSettings,
    RandomSettings,
)
from blockqnn.settings.data import DataSettings
from blockqnn.settings.network import NetworkSettings
from blockqnn.settings.plan import CheckpointSettings, EvaluationSettings, Plan, TrainingWorkers
from blockqnn.settings.recipe import Recipe
from blockqnn.settings.search import (
    Budget,
    LatencySettings,
    RewardSettings,
    RungSettings,
    Settings,
    StoppingSettings,
    TradeOffSettings,
)
from blockqnn.settings.space import SpaceSettings
from blockqnn.settings.workers import InlineSettings, LocalSettings, RaySettings, WorkerSettings

__all__ = ["AgentSettings", "Budget", "CheckpointSettings", "DataSettings", "DynaQSettings"]
__all__ += ["EvaluationSettings", "EvolutionSettings", "InlineSettings", "LatencySettings"]
__all__ += ["LocalSettings", "NetworkSettings", "Plan", "QLearningSettings", "RandomSettings"]
__all__ += ["RaySettings", "Recipe", "RewardSettings", "RungSettings", "Settings", "SpaceSettings"]
__all__ += ["StoppingSettings", "TradeOffSettings", "TrainingWorkers", "WorkerSettings"]
