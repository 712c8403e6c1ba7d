"""What a report consists of, before it is written as a page or as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from evaluation.report.picture import Picture


@dataclass(frozen=True)
class Text:
    """A paragraph; a quiet one is a remark."""

    text: str
    quiet: bool = False


@dataclass(frozen=True)
class Column:
    """A table's column: numbers stand right-aligned, code in its own face."""

    name: str
    kind: Literal["text", "number", "code"] = "number"
    unit: str = ""


@dataclass(frozen=True)
class Table:
    """Cells as they are shown; the marked rows (from 0) stand out."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    marked: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Facts:
    """Names and values, one below the other; long ones can be folded away under `title`."""

    rows: Sequence[tuple[str, str]]
    title: str = ""
    code: bool = False


@dataclass(frozen=True)
class KeyNumbers:
    """The few numbers to remember: value, what it is, and a remark."""

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
    """A heading and what stands under it."""

    title: str
    elements: Sequence[Element]


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    about: str
    head: Sequence[Element]
    sections: Sequence[Section] = field(default_factory=tuple)
