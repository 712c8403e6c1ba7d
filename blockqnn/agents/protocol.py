"""What a search asks of an agent."""

from collections.abc import Container, Sequence
from typing import Protocol

import numpy as np

from blockqnn.space.design import D


class Agent(Protocol[D]):
    """Proposes designs and learns from their rewards.

    An agent draws every random number from the generator that it is given, so that the same calls
    make the same agent. So a search resumes without having saved one.
    """

    def propose(self, epsilon: float, rng: np.random.Generator, taken: Container[str] = ()) -> D:
        """A design to try. `epsilon` is the probability of a random action, and `taken` holds the
        keys of what was proposed before.
        """

    def learn_from(
        self,
        finished: Sequence[tuple[D, float]],
        rng: np.random.Generator,
        corrected: Sequence[tuple[D, float]] = (),
    ) -> None:
        """Learn from designs and their rewards in percent, in order: those of a whole iteration in
        sync mode, one at a time in async mode. `corrected` are designs learned from before, with
        rewards that are known better now.
        """
