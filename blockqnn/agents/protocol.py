"""What a search asks of an agent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from blockqnn.space import Block


class Agent(Protocol):
    """Proposes blocks and learns from their rewards.

    An agent draws every random number from the generator it is handed, so that the same calls give
    the same agent: that is how a search resumes without saving one.
    """

    def propose(self, epsilon: float, rng: np.random.Generator) -> Block:
        """A block to try; `epsilon` is the probability of a random action."""

    def learn_from(self, finished: Sequence[tuple[Block, float]], rng: np.random.Generator) -> None:
        """Take in blocks and their rewards in percent, in order: a whole iteration's in sync mode,
        one at a time in async mode.
        """
