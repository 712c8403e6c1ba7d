"""Q-learning that also learns from trajectories it only imagines: the agent of the faster version.

Dyna-Q (Sutton 1990) in place of the 2018 paper's agent. Rewards teach a model, the surrogate, which
predicts the reward of any trajectory, and how sure that is. Before a proposal hundreds of
trajectories are imagined, and each is given a reward drawn from what the model holds possible
(Thompson sampling: what is uncertain is tried because it may be good). Q learns these rewards. The
state is everything chosen so far, and what follows from an action is certain, so the value of an
action is exactly the best reward of any completion: the learning rate is 1. The proposal follows Q
greedily. The journal version of the paper learns mostly from predicted rewards, too. How it does
we could not read; this is our reading.
"""

from collections.abc import Callable, Container
from typing import Any, Generic

import numpy as np
from numpy.random import Generator
from scipy.stats import norm, rankdata

from blockqnn.space.design import Choices, D, Rewards
from blockqnn.surrogate import Array, Surrogate

ELITE = 16
"""Number of best designs that half of the imagined trajectories vary; the others are random."""
AGAIN = 0.5
"""Probability that a design already varied is varied in one more action."""
ATTEMPTS = 100
"""Most walks through the space in search of a design that is not known yet."""

Table = dict[tuple[Any, ...], dict[Any, float]]
"""Q of each next action, by the actions before it."""


class DynaQ(Generic[D]):
    """Q-learning of predicted rewards. It explores even where epsilon is 0.

    `encode` makes a vector of a design, of one length for all; designs that are alike should have
    vectors that are close. `imagined` trajectories are planned with before a proposal. Rewards may
    be of any scale: the model learns their ranks.
    """

    def __init__(
        self, space: Choices[D], encode: Callable[[D], Array], *, imagined: int = 512
    ) -> None:
        self.space = space
        self.imagined = imagined
        self._encode = encode
        self._vectors: dict[str, Array] = {}
        self._known: dict[str, tuple[D, float]] = {}
        """Every design with a reward, the best it ever had unless that was corrected, by key."""
        self._model = Surrogate(mean=0.0, deviation=1.0)
        self._plan: tuple[list[D], Array, Array] | None = None
        """Imagined designs with mean and deviation of their rewards; None after new results."""

    def propose(self, epsilon: float, rng: Generator, taken: Container[str] = ()) -> D:
        """The design that Q, planned anew, leads to. It is known, or its key in `taken`, only where
        no other is found.
        """
        if epsilon < 1 and len(self._known) > 1:
            if self._plan is None:
                self._plan = self._imagine(rng)
            table = self._planned(taken, rng)
            for _ in range(ATTEMPTS if epsilon > 0 else 1):
                design = self._walk(table, epsilon, rng)
                if not self._is_old(design, taken):
                    return design
        for _ in range(ATTEMPTS):
            design = self.space.sample(rng)
            if not self._is_old(design, taken):
                break
        return design

    def learn_from(self, finished: Rewards[D], rng: Generator, corrected: Rewards[D] = ()) -> None:
        """Remember the designs and rewards; the model learns from them before the next proposal."""
        for design, reward in finished:
            before = self._known.get(design.key)
            if before is None or reward > before[1]:
                self._known[design.key] = design, reward
        for design, reward in corrected:
            self._known[design.key] = design, reward
        self._plan = None  # even without news: an agent made again from a journal has no plan

    def _is_old(self, design: D, taken: Container[str]) -> bool:
        return design.key in self._known or design.key in taken

    def _imagine(self, rng: Generator) -> tuple[list[D], Array, Array]:
        """Teach the model what is known, and let it predict the rewards of many trajectories."""
        known = list(self._known.values())
        rewards = np.array([reward for _, reward in known])
        # Ranks as quantiles of a normal distribution: an extreme reward weighs no more than others.
        scores = norm.ppf((rankdata(rewards) - 0.5) / len(rewards))
        self._model.fit(np.array([self._vector(design) for design, _ in known]), scores)
        best = [known[place][0] for place in np.argsort(-rewards, kind="stable")[:ELITE]]
        found: dict[str, D] = {}
        for number in range(self.imagined):
            if number % 2:
                design = self.space.sample(rng)
            else:
                design = self.space.mutate(best[rng.integers(len(best))], rng)
                while rng.random() < AGAIN:
                    design = self.space.mutate(design, rng)
            if design.key not in self._known:
                found.setdefault(design.key, design)
        designs = list(found.values())
        if not designs:
            return [], np.empty(0), np.empty(0)
        vectors = np.array([self._vector(design) for design in designs])
        return (designs, *self._model.predict(vectors, noise=False))

    def _planned(self, taken: Container[str], rng: Generator) -> Table:
        """Q of the actions on the imagined trajectories, by the actions before them."""
        assert self._plan is not None
        designs, means, deviations = self._plan
        rewards = means + deviations * rng.standard_normal(len(means))
        table: Table = {}
        for design, reward in zip(designs, rewards.tolist(), strict=True):
            if design.key in taken:
                continue
            for place, action in enumerate(design.layers):
                row = table.setdefault(design.layers[:place], {})
                row[action] = max(reward, row.get(action, reward))
        return table

    def _walk(self, table: Table, epsilon: float, rng: Generator) -> D:
        """A random action with probability `epsilon`, and where Q knows none; else the best."""
        layers: tuple[Any, ...] = ()
        while choices := self.space.choices(layers):
            row = table.get(layers)
            if row and rng.random() >= epsilon:
                action = max(row, key=row.__getitem__)
            else:
                action = choices[int(rng.integers(len(choices)))]
            layers = (*layers, action)
        return self.space.design(layers)

    def _vector(self, design: D) -> Array:
        if design.key not in self._vectors:
            self._vectors[design.key] = self._encode(design)
        return self._vectors[design.key]
