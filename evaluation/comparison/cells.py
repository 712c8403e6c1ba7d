"""Tables of cells that others have trained, as spaces of sequential choices for our agents.

A cell is a list of choices, each one of a number of options.
"""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blockqnn.errors import UserError


class Choice(NamedTuple):
    """One option, from 0, of the choice at a place counted from 1."""

    index: int  # type: ignore[assignment]  # the field's name among layers hides tuple.index
    option: int


@dataclass(frozen=True)
class Cell:
    """A design of a table."""

    layers: tuple[Choice, ...]

    @cached_property
    def key(self) -> str:
        """The options in order, `3.0.1`."""
        return ".".join(str(choice.option) for choice in self.layers)


@dataclass(frozen=True)
class CellSpace:
    """All cells with so many options at each place."""

    options: tuple[int, ...]
    narrowed = False

    def next_layers(self, index: int) -> tuple[Choice, ...]:
        """Every option at a place; raises ValueError where there is none."""
        if not 1 <= index <= len(self.options):
            raise ValueError(f"no choice at {index}: use 1 to {len(self.options)}")
        return tuple(Choice(index, option) for option in range(self.options[index - 1]))

    def choices(self, layers: Sequence[Choice]) -> tuple[Choice, ...]:
        """Every option of the next choice; nothing where all are made."""
        done = len(layers) >= len(self.options)
        return () if done else self.next_layers(len(layers) + 1)

    def design(self, layers: Sequence[Choice]) -> Cell:
        """The cell of these choices."""
        return Cell(tuple(layers))

    def cell(self, options: Sequence[int]) -> Cell:
        """The cell of these options."""
        return Cell(tuple(Choice(place, int(o)) for place, o in enumerate(options, start=1)))

    def sample(self, rng: np.random.Generator) -> Cell:
        """Every cell is equally likely."""
        return self.cell(rng.integers(self.options).tolist())

    def mutate(self, cell: Cell, rng: np.random.Generator) -> Cell:
        """Another option at one place; the same cell where there is no other."""
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
        """A 1 for each option taken, shape (sum of options,)."""
        offsets = np.concatenate([[0], np.cumsum(self.options)[:-1]])
        vector = np.zeros(sum(self.options))
        vector[offsets + np.array([choice.option for choice in cell.layers])] = 1.0
        return vector


def read_table_file(path: Path) -> str:
    """The text of a file that may be compressed; raises `UserError`."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return content.decode()
    except OSError as error:
        reason = error.strerror or str(error)
    except (EOFError, ValueError) as error:
        reason = str(error)
    except Exception as error:  # zlib.error has no other parent
        reason = str(error)
    raise UserError(f"cannot read {path} ({reason}): give a CSV, or one compressed by gzip")
