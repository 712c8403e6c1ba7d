"""Spaces of cells: a cell is a list of choices, each one of a number of options."""

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blockqnn.errors import UserError


class Choice(NamedTuple):
    """The option, from 0, that is taken at a place, from 1."""

    index: int  # type: ignore[assignment]  # a layer's field has this name, which hides tuple.index
    option: int


@dataclass(frozen=True)
class Cell:
    """A design: one option for every choice."""

    layers: tuple[Choice, ...]

    @cached_property
    def key(self) -> str:
        """The options in order, such as `3.0.1`."""
        return ".".join(str(choice.option) for choice in self.layers)


@dataclass(frozen=True)
class CellSpace:
    """All cells that have a certain number of options at each place."""

    options: tuple[int, ...]
    """The number of options at each place."""
    narrowed = False

    def next_layers(self, index: int) -> tuple[Choice, ...]:
        """All options at a place, from 1. Raises ValueError for a place that does not exist."""
        if not 1 <= index <= len(self.options):
            raise ValueError(f"no choice at {index}: use 1 to {len(self.options)}")
        return tuple(Choice(index, option) for option in range(self.options[index - 1]))

    def choices(self, layers: Sequence[Choice]) -> tuple[Choice, ...]:
        """All options of the next choice; none if all choices are made."""
        done = len(layers) >= len(self.options)
        return () if done else self.next_layers(len(layers) + 1)

    def design(self, layers: Sequence[Choice]) -> Cell:
        """The cell of all its choices."""
        return Cell(tuple(layers))

    def cell(self, options: Sequence[int]) -> Cell:
        """The cell of an option for each place."""
        return Cell(tuple(Choice(place, int(o)) for place, o in enumerate(options, start=1)))

    def sample(self, rng: np.random.Generator) -> Cell:
        """A random cell; all are equally likely."""
        return self.cell(rng.integers(self.options).tolist())

    def mutate(self, cell: Cell, rng: np.random.Generator) -> Cell:
        """The cell with another option at one place, or the same cell if no place has another."""
        open_places = [place for place, count in enumerate(self.options) if count > 1]
        if not open_places:
            return cell
        place = open_places[int(rng.integers(len(open_places)))]
        options = [choice.option for choice in cell.layers]
        step = 1 + int(rng.integers(self.options[place] - 1))
        options[place] = (options[place] + step) % self.options[place]
        return self.cell(options)

    def check(self, cell: Cell) -> None:
        """Raise `ValueError` for a cell of another space."""
        shape = [choice.index for choice in cell.layers] == list(range(1, 1 + len(self.options)))
        if not shape or any(
            not 0 <= choice.option < self.options[choice.index - 1] for choice in cell.layers
        ):
            raise ValueError(f"{cell.key} is no cell with {self.options} options")

    def encode(self, cell: Cell) -> NDArray[np.float64]:
        """A vector with a 1 for each option taken, of shape (sum of options,)."""
        offsets = np.concatenate([[0], np.cumsum(self.options)[:-1]])
        vector = np.zeros(sum(self.options))
        vector[offsets + np.array([choice.option for choice in cell.layers])] = 1.0
        return vector


def read_table_file(path: Path) -> str:
    """The text of a file, which may be compressed by gzip. Raises `UserError`."""
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot read {path} ({reason}): give a CSV, or one compressed by gzip"
        ) from None
