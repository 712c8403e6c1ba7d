"""Tabular Q-learning over layer codes, with a shaped reward and experience replay.

Paper section 3.2: the state is the code of the current layer, the action the code of the next. What
the paper leaves open follows MetaQNN: a trajectory is updated from its end backwards, ties between
best actions are broken at random, replay keeps everything and is sampled with replacement.
"""

from collections.abc import Container, Sequence
from typing import Any, Generic

import numpy as np

from blockqnn.space import Layer, Op
from blockqnn.space.design import Choices, D


class QLearning(Generic[D]):
    """The agent of the 2018 search.

    Learns reward / 100, so that with `initial_q` 0.5 an action never tried looks average. The table
    is sparse: an action never updated has the initial value and takes no memory.
    """

    def __init__(
        self,
        space: Choices[D],
        *,
        learning_rate: float = 0.01,
        discount: float = 1.0,
        initial_q: float = 0.5,
        replay: int = 64,
        batch: int = 64,
    ) -> None:
        self.space = space
        self.learning_rate = learning_rate
        self.discount = discount
        self.initial_q = initial_q
        self.replay = replay
        self.batch = batch
        self._memory: list[tuple[D, float]] = []
        self._table: dict[Any, dict[Any, float]] = {}
        self._leaders: dict[Any, tuple[float, tuple[Any, ...]]] = {}
        """Of rows looked at since their best action fell: the best value, who has it. Rows have
        hundreds of actions after some ten thousand blocks."""

    def q(self, state: Any, action: Any) -> float:
        """Q of taking `action` after the layer `state`; None is the start of a block."""
        state = None if state is None else _ordered(state)
        return self._table.get(state, {}).get(_ordered(action), self.initial_q)

    def propose(self, epsilon: float, rng: np.random.Generator, taken: Container[str] = ()) -> D:
        """Layer by layer: with probability epsilon any legal layer, else one of the best known."""
        state: Any = None
        layers: list[Any] = []
        while actions := self.space.choices(layers):
            if rng.random() >= epsilon:
                actions = self._best(state, actions)
            state = actions[int(rng.integers(len(actions)))]
            layers.append(state)
        return self.space.design(layers)

    def learn(self, block: D, reward: float) -> None:
        """One pass of Q updates over a block's trajectory, given its reward in percent.

        The last action earns r_T, every earlier one r_T / T plus the discounted best value of the
        state it led to, with T the number of layers, terminal included (paper equations 3 to 6).
        """
        self.space.check(block)
        final = reward / 100
        shaped = final / len(block.layers)
        layers = [_ordered(layer) for layer in block.layers]
        for position in reversed(range(len(layers))):
            state = layers[position - 1] if position else None
            action = layers[position]
            if position == len(layers) - 1:
                target = final
            else:
                target = shaped + self.discount * self._maximum(action, layers[: position + 1])
            row = self._table.setdefault(state, {})
            old = row.get(action, self.initial_q)
            row[action] = new = (1 - self.learning_rate) * old + self.learning_rate * target
            if state in self._leaders:
                value, actions = self._leaders[state]
                if new > value:
                    self._leaders[state] = new, (action,)
                elif new == value or action in actions:
                    del self._leaders[state]

    def learn_from(self, finished: Sequence[tuple[D, float]], rng: np.random.Generator) -> None:
        """Remember the designs, then learn from memories drawn at random: `replay` of them for
        every `batch` designs.

        In async mode, where less than an iteration comes at a time, what comes is learned at once
        too: the next proposal is made before replay is likely to have drawn it.
        """
        if len(finished) < self.batch:
            for design, reward in finished:
                self.learn(design, reward)
        before = len(self._memory)
        self._memory.extend(finished)
        due = self.replay * len(self._memory) // self.batch - self.replay * before // self.batch
        for pick in rng.integers(len(self._memory), size=due) if due else ():
            self.learn(*self._memory[pick])

    def _maximum(self, state: Any, layers: Sequence[Any]) -> float:
        """The best value after `layers`, of which `state` is the last."""
        row = self._table.get(state)
        if not row:
            return self.initial_q
        if self.space.narrowed:  # after these layers not all of the row need be legal
            return max(row.get(a, self.initial_q) for a in self.space.choices(layers))
        tried, _ = self._leading(state, row)
        if len(row) < len(self.space.next_layers(state.index + 1)):
            return max(tried, self.initial_q)
        return tried

    def _best(self, state: Any, actions: tuple[Any, ...]) -> tuple[Any, ...]:
        row = self._table.get(state)
        if not row:
            return actions
        if self.space.narrowed:
            best = max(row.get(a, self.initial_q) for a in actions)
            return tuple(a for a in actions if row.get(a, self.initial_q) == best)
        best, leaders = self._leading(state, row)
        if len(row) < len(actions):
            best = max(best, self.initial_q)
        if best != self.initial_q:
            return leaders
        return tuple(a for a in actions if row.get(a, self.initial_q) == best)

    def _leading(self, state: Any, row: dict[Any, float]) -> tuple[float, tuple[Any, ...]]:
        """The best value of the actions tried after a layer, and the actions that have it."""
        if state not in self._leaders:
            value = max(row.values())
            leaders = tuple(sorted([action for action, q in row.items() if q == value]))
            self._leaders[state] = value, leaders
        return self._leaders[state]


def _ordered(layer: Any) -> Any:
    """Operands of add and concat in the order in which the space lists them."""
    if not isinstance(layer, Layer):  # the choice of another kind of design
        return layer
    if layer.pred1 > layer.pred2 and layer.op in (Op.ADD, Op.CONCAT):
        return layer._replace(pred1=layer.pred2, pred2=layer.pred1)
    return layer
