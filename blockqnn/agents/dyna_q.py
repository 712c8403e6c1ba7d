"""Q-learning that also learns from trajectories it only imagines: the agent of the faster version.

Dyna-Q (Sutton 1990) in place of the 2018 paper's agent. Rewards teach a model, the surrogate, which
gives a reward, and how sure it is of it, to any trajectory. Before a proposal hundreds of
trajectories are imagined, and each is given a reward drawn from what the model holds possible
(Thompson sampling: what is uncertain is tried because it may be good). Q backs these up. The state
is everything chosen so far, and what follows from an action is certain, so that the best reward of
any completion is exactly the value of an action: the learning rate is 1. The proposal follows Q
greedily. The journal version of the paper learns mostly from predicted rewards, too; how, we could
not read: this is our reading.
"""

from collections.abc import Callable, Container, Sequence
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from blockqnn.space.design import Choices, D
from blockqnn.surrogate import Surrogate

ELITE = 16
"""Half of the trajectories vary one of so many best designs, ..."""
AGAIN = 0.5
"""...in one action, and with this probability in one more, and so on; the others are random."""
ATTEMPTS = 100
"""Random walks until one leads to a design that is not known yet."""


class DynaQ(Generic[D]):
    """Needs no epsilon to explore; it counts all the same, as the probability of a random action.

    `encode` makes a vector of a design, the same length for all; designs that are alike should have
    vectors that are close. Rewards may be of any scale: the model learns their ranks.
    """

    def __init__(
        self,
        space: Choices[D],
        encode: Callable[[D], NDArray[np.float64]],
        *,
        imagined: int = 512,
    ) -> None:
        self.space = space
        self.imagined = imagined
        self._encode = encode
        self._vectors: dict[str, NDArray[np.float64]] = {}
        self._known: dict[str, tuple[D, float]] = {}
        """Every design with a reward, the best it ever had, by key."""
        self._model = Surrogate(mean=0.0, deviation=1.0)
        self._plan: tuple[list[D], NDArray[np.float64], NDArray[np.float64]] | None = None
        """Imagined designs, with mean and deviation of their rewards; None after every lesson."""

    def propose(self, epsilon: float, rng: np.random.Generator, taken: Container[str] = ()) -> D:
        """Follow Q, which is planned anew; never a known design, or one whose key is in `taken`,
        while there are others.
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

    def learn_from(self, finished: Sequence[tuple[D, float]], rng: np.random.Generator) -> None:
        """Remember the designs and rewards; the model learns from them before the next proposal."""
        for design, reward in finished:
            before = self._known.get(design.key)
            if before is None or reward > before[1]:
                self._known[design.key] = design, reward
        self._plan = None  # without news too: an agent made again from a journal has no old plan

    def _is_old(self, design: D, taken: Container[str]) -> bool:
        return design.key in self._known or design.key in taken

    def _imagine(
        self, rng: np.random.Generator
    ) -> tuple[list[D], NDArray[np.float64], NDArray[np.float64]]:
        """Teach the model, then let it judge what may come of many trajectories."""
        known = list(self._known.values())
        rewards = np.array([reward for _, reward in known])
        # Ranks as quantiles of a normal distribution: what went wholly wrong weighs no more.
        scores = norm.ppf((rankdata(rewards) - 0.5) / len(rewards))
        self._model.fit(np.array([self._vector(design) for design, _ in known]), scores)
        best = [known[place][0] for place in np.argsort(-rewards, kind="stable")[:ELITE]]
        found: dict[str, D] = {}
        for number in range(self.imagined):
            if number % 2:
                design = self.space.sample(rng)
            else:
                design = best[rng.integers(len(best))]
                design = self.space.mutate(design, rng)
                while rng.random() < AGAIN:
                    design = self.space.mutate(design, rng)
            if design.key not in self._known:
                found.setdefault(design.key, design)
        designs = list(found.values())
        if not designs:
            return [], np.empty(0), np.empty(0)
        vectors = np.array([self._vector(design) for design in designs])
        return (designs, *self._model.predict(vectors, noise=False))

    def _planned(
        self, taken: Container[str], rng: np.random.Generator
    ) -> dict[tuple[Any, ...], dict[Any, float]]:
        """Q of every action on an imagined trajectory, by the actions before it."""
        assert self._plan is not None
        designs, means, deviations = self._plan
        rewards = means + deviations * rng.standard_normal(len(means))
        table: dict[tuple[Any, ...], dict[Any, float]] = {}
        for design, reward in zip(designs, rewards.tolist(), strict=True):
            if design.key in taken:
                continue
            for place, action in enumerate(design.layers):
                row = table.setdefault(design.layers[:place], {})
                row[action] = max(reward, row.get(action, reward))
        return table

    def _walk(
        self,
        table: dict[tuple[Any, ...], dict[Any, float]],
        epsilon: float,
        rng: np.random.Generator,
    ) -> D:
        layers: tuple[Any, ...] = ()
        while choices := self.space.choices(layers):
            row = table.get(layers)
            if row and rng.random() >= epsilon:
                action = max(row, key=row.__getitem__)
            else:
                action = choices[int(rng.integers(len(choices)))]
            layers = (*layers, action)
        return self.space.design(layers)

    def _vector(self, design: D) -> NDArray[np.float64]:
        if design.key not in self._vectors:
            self._vectors[design.key] = self._encode(design)
        return self._vectors[design.key]
