"""What a search asks of an agent, and an agent of a space."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np


class Design(Protocol):
    """What an agent proposes: a block, or a cell of a table.

    `layers` are the choices that make it, in order. Designs with one `key` are the same network.
    """

    @property
    def layers(self) -> tuple[Any, ...]: ...

    @property
    def key(self) -> str: ...


D = TypeVar("D", bound=Design)


class Choices(Protocol[D]):
    """A space in which a design is made by one choice after the other."""

    @property
    def narrowed(self) -> bool:
        """Whether what may come next depends on more than the number of choices made."""

    def next_layers(self, index: int) -> tuple[Any, ...]:
        """Every choice that some design has at a place, counted from 1."""

    def choices(self, layers: Sequence[Any]) -> tuple[Any, ...]:
        """What may come after the first choices; nothing where they are a whole design."""

    def design(self, layers: Sequence[Any]) -> D:
        """The design that choices make."""

    def sample(self, rng: np.random.Generator) -> D:
        """A uniform random walk."""

    def mutate(self, design: D, rng: np.random.Generator) -> D:
        """Another design, as near as there is."""

    def check(self, design: D) -> None:
        """Raise `ValueError` for a design that is not of this space."""


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
