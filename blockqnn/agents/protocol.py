"""What a search asks of an agent."""

from collections.abc import Container
from typing import Protocol

from numpy.random import Generator

from blockqnn.space.design import D, Rewards


class Agent(Protocol[D]):
    """Proposes designs and learns from their rewards.

    An agent draws every random number from the generator that it is given, so that the same calls
    make the same agent. So a search resumes without having saved one.
    """

    def propose(self, epsilon: float, rng: Generator, taken: Container[str] = ()) -> D:
        """A design to try. `epsilon` is the probability of a random action, and `taken` holds the
        keys of what was proposed before.
        """

    def learn_from(self, finished: Rewards[D], rng: Generator, corrected: Rewards[D] = ()) -> None:
        """Learn from designs and their rewards in percent, in order: those of a whole iteration in
        sync mode, one at a time in async mode. `corrected` are designs learned from before, with
        rewards that are known better now.
        """
