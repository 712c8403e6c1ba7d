"""Optuna's TPE (Bergstra et al. 2011) as an agent.

Every choice is a categorical parameter, asked for in the order in which a design is made. The
settings are Optuna's defaults. Needs the extra `compare`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from typing import TYPE_CHECKING, Any, Generic

from numpy.random import Generator

from blockqnn.errors import UserError
from blockqnn.space.design import Choices, D, Rewards

if TYPE_CHECKING:
    import optuna


class Tpe(Generic[D]):
    """Optuna's TPE as an `Agent`. It must learn from designs in the order of its proposals."""

    def __init__(self, space: Choices[D]) -> None:
        self.space = space
        self._optuna = import_optuna()
        self._study: optuna.Study | None = None
        self._open: deque[optuna.Trial] = deque()

    def propose(self, epsilon: float, rng: Generator, taken: Container[str] = ()) -> D:
        """Propose what TPE suggests, whatever epsilon is. The first generator seeds the study."""
        if self._study is None:
            sampler = self._optuna.samplers.TPESampler(seed=int(rng.integers(2**32)))
            self._study = self._optuna.create_study(direction="maximize", sampler=sampler)
        trial = self._study.ask()
        layers: list[Any] = []
        prefix = ""
        while choices := self.space.choices(layers):
            place = len(layers) + 1
            picked = trial.suggest_categorical(f"{prefix}{place}", range(len(choices)))
            layers.append(choices[picked])
            if self.space.narrowed:  # which choices a place has depends on those before it
                prefix += f"{picked}."
        self._open.append(trial)
        return self.space.design(layers)

    def learn_from(self, finished: Rewards[D], rng: Generator, corrected: Rewards[D] = ()) -> None:
        """Tell the study the rewards of designs."""
        assert self._study is not None
        for _, reward in finished:
            self._study.tell(self._open.popleft(), reward)


def import_optuna() -> Any:
    """The module of Optuna. Raises `UserError` if it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UserError(
            "the agent tpe needs Optuna: pip install 'blockqnn[compare]', or leave tpe out"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
