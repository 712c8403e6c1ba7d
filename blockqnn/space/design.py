"""What an agent asks of a search space: designs, made by one choice after the other."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np


class Design(Protocol):
    """What an agent proposes: a block, or a cell of a table."""

    @property
    def layers(self) -> tuple[Any, ...]:
        """The choices that make it, in order."""

    @property
    def key(self) -> str:
        """A text that it shares with every design of the same network."""


D = TypeVar("D", bound=Design)

Rewards = Sequence[tuple[D, float]]
"""Designs with their rewards in percent."""


class Choices(Protocol[D]):
    """A space in which a design is made by one choice after the other."""

    @property
    def narrowed(self) -> bool:
        """Whether what may come next depends on more than the number of choices made."""

    def next_layers(self, index: int) -> tuple[Any, ...]:
        """Every choice that some design of the space makes at a place, counted from 1."""

    def choices(self, layers: Sequence[Any]) -> tuple[Any, ...]:
        """What may come after the first choices; nothing if they are a whole design."""

    def design(self, layers: Sequence[Any]) -> D:
        """The design that choices make."""

    def sample(self, rng: np.random.Generator) -> D:
        """The design of a random walk in which every choice is equally likely."""

    def mutate(self, design: D, rng: np.random.Generator) -> D:
        """Another design, one choice away if there is one."""

    def check(self, design: D) -> None:
        """Raise `ValueError` for a design that is not of this space."""
