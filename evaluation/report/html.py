"""A report as one HTML file, by the template page.html."""

import re

from jinja2 import Environment, PackageLoader, StrictUndefined

from evaluation.report.document import Document


def page(document: Document) -> str:
    """The whole HTML file. Every text of the document is escaped; its pictures are trusted."""
    return _PAGES.get_template("page.html").render(document=document)


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _kind_of(element: object) -> str:
    return type(element).__name__


def _shade(share: float, right: bool) -> str:
    """Style of a matrix's cell. Mistakes are rare: their shade grows with the root of their share,
    so that one in a hundred is seen."""
    tone, depth = ("blue", 45 * share) if right else ("orange", 75 * share**0.5)
    return f"--tone: var(--{tone}); --share: {depth:.1f}"


_PAGES = Environment(
    loader=PackageLoader("evaluation.report", ""),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_PAGES.filters["anchor"] = _anchor
_PAGES.globals |= {"kind_of": _kind_of, "shade": _shade}
