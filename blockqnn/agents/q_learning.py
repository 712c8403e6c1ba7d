"""Tabular Q-learning over layer codes, with a shaped reward and experience replay.

The state is the code of the current layer, the action the code of the next (CVPR 2018, section
3.2). What the paper leaves open follows MetaQNN: a trajectory is updated from its end backwards,
ties between best actions are broken at random, replay keeps everything and is sampled with
replacement.
"""

from collections.abc import Container, Sequence
from typing import Any, Generic

from numpy.random import Generator

from blockqnn.space import MERGES, Layer
from blockqnn.space.design import Choices, D, Rewards


class QLearning(Generic[D]):
    """The agent of the 2018 search.

    It learns reward / 100, so that with `initial_q` 0.5 an action never tried looks average. An
    action never updated has this value and takes no memory.
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
        """Best value and the actions that have it, by state, for states where both are still known.
        A state has hundreds of actions after some ten thousand blocks."""

    def q(self, state: Any, action: Any) -> float:
        """Q of the layer `action` after the layer `state`; the state None starts a block."""
        state = None if state is None else _ordered(state)
        return self._table.get(state, {}).get(_ordered(action), self.initial_q)

    def propose(self, epsilon: float, rng: Generator, taken: Container[str] = ()) -> D:
        """A design made layer by layer: any legal one with probability epsilon, else a best one."""
        state: Any = None
        layers: list[Any] = []
        while actions := self.space.choices(layers):
            if rng.random() >= epsilon:
                actions = self._best(state, actions)
            state = actions[int(rng.integers(len(actions)))]
            layers.append(state)
        return self.space.design(layers)

    def learn(self, block: D, reward: float) -> None:
        """Update Q once for each layer of a block, given its reward in percent.

        The last action earns r_T, every earlier one r_T / T plus the discounted best value of the
        state it led to. T is the number of layers, terminal included (CVPR 2018, equations 3 to 6).
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

    def learn_from(self, finished: Rewards[D], rng: Generator, corrected: Rewards[D] = ()) -> None:
        """Remember the designs, then learn from memories drawn at random: `replay` of them for
        every `batch` designs.

        Fewer than `batch` designs, as in async mode, are also learned at once: the next proposal is
        made before replay is likely to have drawn them. Corrected rewards are memories like others.
        """
        finished = [*finished, *corrected]
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
        if self.space.narrowed:  # some actions of the row may be illegal after these layers
            return max(row.get(a, self.initial_q) for a in self.space.choices(layers))
        tried, _ = self._leading(state, row)
        if len(row) < len(self.space.next_layers(len(layers) + 1)):
            return max(tried, self.initial_q)
        return tried

    def _best(self, state: Any, actions: tuple[Any, ...]) -> tuple[Any, ...]:
        row = self._table.get(state)
        if not row:
            return actions
        if self.space.narrowed:
            best = max(row.get(a, self.initial_q) for a in actions)
        else:
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
    """The layer with operands in the order in which the space lists them."""
    if isinstance(layer, Layer) and layer.op in MERGES and layer.pred1 > layer.pred2:
        return layer._replace(pred1=layer.pred2, pred2=layer.pred1)
    return layer
