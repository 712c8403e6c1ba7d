"""A report as Markdown, for places where it is read beside the code."""

import re
from functools import singledispatch

from evaluation.report.document import (
    Document,
    Element,
    Facts,
    KeyNumbers,
    Matrix,
    Pictures,
    Section,
    SideBySide,
    Table,
    Text,
)


def markdown(document: Document, pictures: str) -> str:
    """The whole report as Markdown, in which pictures are `pictures`/<name>.png. Every text of the
    document is escaped, so that no reader takes it for markup."""
    parts = [
        f"# {plain(document.title)}",
        plain(document.about),
        *(_element(element, pictures) for element in document.head),
        *(_section(section, pictures) for section in document.sections),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: str) -> str:
    """Text on one line that no Markdown reader takes for markup."""
    marks = r"[\\`*\[\]<>|#~$&]|(?<!\w)_|_(?!\w)"  # an underscore within a word is none
    return re.sub(marks, r"\\\g<0>", " ".join(text.split()))


def code(text: str) -> str:
    """Text as Markdown code, whatever backticks are in it; nothing for an empty text."""
    clean = " ".join(text.split()).replace("|", "\\|")
    longest = max((len(run) for run in re.findall(r"`+", clean)), default=0)
    fence = "`" * (longest + 1)
    room = " " if longest else ""
    return f"{fence}{room}{clean}{room}{fence}" if clean else ""


def _section(section: Section, pictures: str) -> str:
    parts = [_element(element, pictures) for element in section.elements]
    return "\n\n".join([f"## {plain(section.title)}", *parts])


@singledispatch
def _element(element: Element, pictures: str) -> str:
    raise TypeError(f"cannot write {type(element).__name__}")


@_element.register
def _(element: SideBySide, pictures: str) -> str:
    return "\n\n".join(_element(inner, pictures) for inner in element.elements)


@_element.register
def _(element: Text, pictures: str) -> str:
    return plain(element.text)


@_element.register
def _(element: KeyNumbers, pictures: str) -> str:
    return "\n".join(
        f"- {plain(name)}: **{plain(value)}**{f' ({plain(remark)})' if remark else ''}"
        for value, name, remark in element.items
    )


@_element.register
def _(element: Facts, pictures: str) -> str:
    write = code if element.code else plain
    rows = [[plain(name), write(value)] for name, value in element.rows]
    return _rows([["", ""], ["---", "---"], *rows], element.title)


@_element.register
def _(element: Table, pictures: str) -> str:
    heads = [
        plain(f"{column.name} ({column.unit})" if column.unit else column.name)
        for column in element.columns
    ]
    marks = ["---:" if column.kind == "number" else "---" for column in element.columns]
    rows = []
    for number, cells in enumerate(element.rows):
        written = [
            code(cell) if column.kind == "code" else plain(cell)
            for cell, column in zip(cells, element.columns, strict=True)
        ]
        if number in element.marked:
            written[0] = f"**{written[0]}**"
        rows.append(written)
    return _rows([heads, marks, *rows], element.caption)


@_element.register
def _(element: Pictures, pictures: str) -> str:
    parts = []
    for picture in element.pictures:
        parts.append(f"![{plain(picture.alt)}]({pictures}/{picture.name}.png)")
        if picture.caption or picture.code:
            parts.append(" ".join(filter(None, [plain(picture.caption), code(picture.code)])))
    return "\n\n".join(parts)


@_element.register
def _(element: Matrix, pictures: str) -> str:
    names = [plain(name) for name in element.names]
    rows = [
        [name, *(f"**{count:,}**" if i == j else f"{count:,}" for j, count in enumerate(counts))]
        for i, (name, counts) in enumerate(zip(names, element.counts, strict=True))
    ]
    return _rows([["", *names], ["---", *["---:"] * len(names)], *rows], element.caption)


def _rows(rows: list[list[str]], caption: str) -> str:
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{plain(caption)}:\n\n{table}" if caption else table
