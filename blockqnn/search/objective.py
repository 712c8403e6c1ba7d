"""What a search looks for, as one number: the reward of a candidate."""

from blockqnn.cost import Cost
from blockqnn.reward import NOT_TRAINED, latency_price, parameters_price, reward, traded_reward
from blockqnn.search.outcome import Outcome
from blockqnn.settings import RewardSettings
from blockqnn.space import Block


class Objective:
    """Turns outcomes into rewards, and rewards back into the accuracy that earns them."""

    def __init__(
        self, weights: RewardSettings, chance: float, plain: Cost, *, predicted: bool = False
    ) -> None:
        """`chance` is an accuracy in percent that takes no learning; `plain` the cost of block
        plain's network, against which a trade-off is held. The paper's reward has the price of the
        `predicted` latency or else of the measured one.
        """
        self._weights = weights
        self._predicted = predicted
        self._chance = chance
        self._plain = plain

    def reward(self, outcome: Outcome, block: Block, cost: Cost) -> float:
        """The reward in percent of a block whose network has this cost and came to this outcome.

        What was not trained has the paper's reward for it, chance, or ours, less than any other.
        """
        accuracy = outcome.expected
        if self._weights.objective == "paper":
            if accuracy is None:
                return self._chance
            value = self._paper(accuracy, block, cost)
            if self._predicted:
                return value
            return value - latency_price(outcome.latency, self._weights.latency)
        if accuracy is None:
            return NOT_TRAINED
        return traded_reward(accuracy, chance=self._chance, costs=self._ratios(cost))

    def accuracy_for(self, wanted: float, block: Block, cost: Cost) -> float:
        """The accuracy in percent with which the block would have a wanted reward, were it not for
        the price of a latency that is measured.
        """
        if self._weights.objective == "paper":
            return wanted - self._paper(0.0, block, cost)
        if wanted <= self._chance:  # nothing is taken from such an accuracy
            return wanted
        kept = traded_reward(1.0, chance=0.0, costs=self._ratios(cost))
        return self._chance + (wanted - self._chance) / kept

    def _paper(self, accuracy: float, block: Block, cost: Cost) -> float:
        """The paper's reward before the price of a measured latency is taken from it."""
        weights, density = self._weights, block.density
        value = reward(accuracy, macs=cost.macs, density=density, mu=weights.mu, rho=weights.rho)
        value -= parameters_price(cost.parameters, weights.parameters)
        if self._predicted:
            value -= latency_price(cost.milliseconds, weights.latency)
        return value

    def _ratios(self, cost: Cost) -> list[tuple[float, float]]:
        prices, plain = self._weights.trade_off, self._plain
        ratios = [
            (prices.macs, cost.macs / plain.macs),
            (prices.parameters, cost.parameters / plain.parameters),
        ]
        for price, own, of_plain in (
            (prices.seconds, cost.seconds_an_image, plain.seconds_an_image),
            (prices.latency, cost.milliseconds, plain.milliseconds),
        ):
            if own is not None and of_plain is not None:
                ratios.append((price, own / of_plain))
        return ratios
