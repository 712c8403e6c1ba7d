"""What a report consists of, before it is written as a page or as Markdown."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from evaluation.report.picture import Picture

T = TypeVar("T")


@dataclass(frozen=True)
class Text:
    """A paragraph; a quiet one is a remark in small, faint letters."""

    text: str
    quiet: bool = False


@dataclass(frozen=True)
class Column:
    """The head of a table's column: numbers stand right-aligned, code in a typewriter's letters."""

    name: str
    kind: Literal["text", "number", "code"] = "number"
    unit: str = ""


@dataclass(frozen=True)
class Table:
    """A table whose cells are written as they are to be read; marked rows (from 0) stand out."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    marked: Collection[int] = ()


def table_of(
    items: Iterable[T],
    columns: Sequence[tuple[Column | None, Callable[[T], str]]],
    caption: str = "",
    marked: Collection[int] = (),
) -> Table:
    """A table with one row for each item. Each column comes with the function that gives its cell;
    where None stands for a column, it is left out."""
    shown = [(column, cell) for column, cell in columns if column is not None]
    rows = [[cell(item) for _, cell in shown] for item in items]
    return Table([column for column, _ in shown], rows, caption, marked)


@dataclass(frozen=True)
class Facts:
    """Names and values, one pair a line; under a title they are folded away until it is clicked."""

    rows: Sequence[tuple[str, str]]
    title: str = ""
    code: bool = False
    """Whether the values are code."""


@dataclass(frozen=True)
class KeyNumbers:
    """The few numbers to remember, in large figures: value, what it is, and a remark."""

    items: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side."""

    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Matrix:
    """Counts by true (rows) and predicted (columns) class, shaded by their share of the row."""

    names: Sequence[str]
    counts: Sequence[Sequence[int]]
    caption: str = ""


@dataclass(frozen=True)
class SideBySide:
    """Tables and pictures that stand side by side where there is room."""

    elements: Sequence[Table | Pictures | Matrix]


Element = SideBySide | Text | Table | Facts | KeyNumbers | Pictures | Matrix


@dataclass(frozen=True)
class Section:
    """A heading and the elements under it."""

    title: str
    elements: Sequence[Element]


@dataclass(frozen=True)
class Document:
    """A whole report: title, a line about it, elements before the first heading, and sections."""

    title: str
    about: str
    head: Sequence[Element]
    sections: Sequence[Section] = field(default_factory=tuple)
