"""What a search asks of an agent, and an agent of a space."""

from collections.abc import Container, Sequence
from typing import Protocol

import numpy as np

from blockqnn.space.design import D


class Agent(Protocol[D]):
    """Proposes designs and learns from their rewards.

    An agent draws every random number from the generator it is handed, so that the same calls give
    the same agent: that is how a search resumes without saving one.
    """

    def propose(self, epsilon: float, rng: np.random.Generator, taken: Container[str] = ()) -> D:
        """A design to try; `epsilon` is the probability of a random action, `taken` has the keys
        of what was proposed before.
        """

    def learn_from(self, finished: Sequence[tuple[D, float]], rng: np.random.Generator) -> None:
        """Take in designs and their rewards in percent, in order: a whole iteration's in sync mode,
        one at a time in async mode.
        """
