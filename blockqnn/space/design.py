"""What an agent asks of a search space: designs, made by one choice after the other."""

from collections.abc import Sequence
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
