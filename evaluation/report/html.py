"""A report as one HTML file that needs nothing else: no script, no font, no address."""

import re
from functools import singledispatch
from html import escape
from importlib.resources import files

from evaluation.report.document import (
    Column,
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
from evaluation.report.picture import Picture

WIDE_NAME = 4
"""Characters of a class name above which a matrix has its column heads upright."""
WRAPPED = 36
"""Characters above which a cell of a table may have several lines."""


def page(document: Document) -> str:
    """The whole file. Every text of the document is escaped; its pictures are trusted."""
    style = files("evaluation.report").joinpath("page.css").read_text(encoding="utf-8")
    links = [f'<a href="#{_anchor(s)}">{escape(s.title)}</a>' for s in document.sections]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(document.title)}</title>",
            f"<style>\n{style}</style>",
            "<header>",
            f"<h1>{escape(document.title)}</h1>",
            f'<p class="about">{escape(document.about)}</p>',
            *map(_element, document.head),
            f"<nav>{' '.join(links)}</nav>",
            "</header>",
            "<main>",
            *map(_section, document.sections),
            "</main>",
            "</html>",
            "",
        ]
    )


def _anchor(section: Section) -> str:
    return re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")


def _section(section: Section) -> str:
    body = "\n".join(map(_element, section.elements))
    anchor = _anchor(section)
    return f'<section id="{anchor}">\n<h2>{escape(section.title)}</h2>\n{body}\n</section>'


@singledispatch
def _element(element: Element) -> str:
    raise TypeError(f"cannot write {type(element).__name__}")


@_element.register
def _(element: SideBySide) -> str:
    return f'<div class="beside">{"".join(map(_element, element.elements))}</div>'


@_element.register
def _(element: Text) -> str:
    kind = ' class="quiet"' if element.quiet else ""
    return f"<p{kind}>{escape(element.text)}</p>"


@_element.register
def _(element: KeyNumbers) -> str:
    items = [
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        f'<dd class="remark">{escape(remark)}</dd></div>'
        for value, name, remark in element.items
    ]
    return f'<dl class="figures">{"".join(items)}</dl>'


@_element.register
def _(element: Facts) -> str:
    rows = [
        f"<dt>{escape(name)}</dt><dd>{_code(value) if element.code else escape(value)}</dd>"
        for name, value in element.rows
    ]
    listed = f'<dl class="facts">{"".join(rows)}</dl>'
    if not element.title:
        return listed
    return f"<details><summary>{escape(element.title)}</summary>{listed}</details>"


@_element.register
def _(element: Table) -> str:
    caption = f"<caption>{escape(element.caption)}</caption>" if element.caption else ""
    heads = "".join(_head(column) for column in element.columns)
    rows = []
    for number, cells in enumerate(element.rows):
        marked = ' class="marked"' if number in element.marked else ""
        written = [
            _cell(cell, column, first=i == 0)
            for i, (cell, column) in enumerate(zip(cells, element.columns, strict=True))
        ]
        rows.append(f"<tr{marked}>{''.join(written)}</tr>")
    return (
        f'<div class="scroll"><table>{caption}<thead><tr>{heads}</tr></thead>\n'
        f"<tbody>{chr(10).join(rows)}</tbody></table></div>"
    )


def _head(column: Column) -> str:
    unit = f'<span class="unit">{escape(column.unit)}</span>' if column.unit else ""
    kind = ' class="number"' if column.kind == "number" else ""
    return f'<th scope="col"{kind}>{escape(column.name)}{unit}</th>'


def _cell(cell: str, column: Column, first: bool) -> str:
    text = _code(cell) if column.kind == "code" and cell else escape(cell)
    kind = "wrap" if column.kind == "text" and len(cell) > WRAPPED else column.kind
    name = "" if kind == "text" else f' class="{kind}"'
    return f'<th scope="row"{name}>{text}</th>' if first else f"<td{name}>{text}</td>"


@_element.register
def _(element: Pictures) -> str:
    return f'<div class="plates">{"".join(map(_plate, element.plates))}</div>'


def _plate(plate: Picture) -> str:
    kind = "block" if plate.code else "wide" if plate.wide else ""
    words = escape(plate.caption) + (_code(plate.code) if plate.code else "")
    caption = f"<figcaption>{words}</figcaption>" if words else ""
    svg = plate.svg.replace("<svg", f'<svg role="img" aria-label="{escape(plate.alt)}"', 1)
    return f'<figure class="{kind}">\n{svg}\n{caption}</figure>'


@_element.register
def _(element: Matrix) -> str:
    tall = any(len(name) > WIDE_NAME for name in element.names)
    heads = "".join(
        f'<th scope="col"{" class=tall" if tall else ""}><span>{escape(name)}</span></th>'
        for name in element.names
    )
    rows = []
    for true, (name, counts) in enumerate(zip(element.names, element.counts, strict=True)):
        total = sum(counts) or 1
        cells = [_count(count, count / total, true == guess) for guess, count in enumerate(counts)]
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    caption = f"<caption>{escape(element.caption)}</caption>" if element.caption else ""
    return (
        f'<div class="scroll"><table class="matrix">{caption}<thead><tr><td></td>{heads}</tr>'
        f"</thead>\n<tbody>{chr(10).join(rows)}</tbody></table></div>"
    )


def _count(count: int, share: float, right: bool) -> str:
    """Mistakes are rare: their shade grows with the root, so that one in a hundred is seen."""
    if count == 0:
        return '<td class="none">0</td>'
    depth = 45 * share if right else 75 * share**0.5
    return (
        f'<td style="--tone: var(--{"blue" if right else "orange"}); --share: {depth:.1f}">'
        f"{count:,}</td>"
    )


def _code(text: str) -> str:
    """A block's code may break between its layers, anything else anywhere."""
    return f"<code>{escape(text).replace(')(', ')<wbr>(')}</code>"
