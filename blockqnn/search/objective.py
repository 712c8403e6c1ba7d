"""What a search looks for, as one number: the reward of a candidate."""

from blockqnn.cost import Cost
from blockqnn.reward import NOT_TRAINED, latency_price, parameters_price, reward, traded_reward
from blockqnn.search.outcome import Outcome
from blockqnn.search.records import Task
from blockqnn.settings import Settings
from blockqnn.space import Block
from blockqnn.zoo import BLOCKS

REFERENCE = "plain"
"""Name of the block whose network's costs a trade-off is held against."""


class Objective:
    """Turns outcomes into rewards, and rewards back into the accuracy that earns them."""

    def __init__(self, settings: Settings, task: Task) -> None:
        self._weights = settings.reward
        self._chance = task.chance
        self._reference = settings.network.cost(
            BLOCKS[REFERENCE],
            num_classes=task.num_classes,
            in_channels=task.in_channels,
            image_size=task.image_size,
        )

    def reward(self, outcome: Outcome, block: Block, cost: Cost) -> float:
        """The reward in percent of a block whose network has this cost and came to this outcome.

        What was not trained has the paper's reward for it, chance, or ours, less than any other.
        """
        accuracy = outcome.expected
        if self._weights.objective == "paper":
            if accuracy is None:
                return self._chance
            value = self._paper(accuracy, block, cost)
            return value - latency_price(outcome.latency, self._weights.latency)
        if accuracy is None:
            return NOT_TRAINED
        return traded_reward(accuracy, chance=self._chance, costs=self._ratios(cost))

    def accuracy_for(self, wanted: float, block: Block, cost: Cost) -> float:
        """The accuracy in percent with which the block would have a wanted reward, were it not for
        the price of its latency.
        """
        if self._weights.objective == "paper":
            return wanted - self._paper(0.0, block, cost)
        kept = traded_reward(1.0, chance=0.0, costs=self._ratios(cost))
        return self._chance + max(0.0, wanted - self._chance) / kept

    def _paper(self, accuracy: float, block: Block, cost: Cost) -> float:
        """The paper's reward before the price of the latency is taken from it."""
        weights, density = self._weights, block.density
        value = reward(accuracy, macs=cost.macs, density=density, mu=weights.mu, rho=weights.rho)
        return value - parameters_price(cost.parameters, weights.parameters)

    def _ratios(self, cost: Cost) -> list[tuple[float, float]]:
        prices, reference = self._weights.trade_off, self._reference
        return [
            (prices.macs, cost.macs / reference.macs),
            (prices.parameters, cost.parameters / reference.parameters),
        ]
