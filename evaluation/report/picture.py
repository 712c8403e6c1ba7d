"""A picture of the report: one drawing, inline in the page as SVG and as PNG beside the Markdown.

Drawings are made on white with fixed colours; in the page most of these become variables of the
style sheet, so that the same picture suits a light and a dark screen.
"""

import base64
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from blockqnn.search.history import History
from blockqnn.space import Block
from blockqnn.storage import write_atomically
from evaluation.drawing import block_svg, draw_block
from evaluation.plots.search import learning_curve
from evaluation.plots.style import PHONE, WIDTH

VARIABLES = {
    "#000000": "ink",
    "#1f2933": "ink",
    "#616e7c": "faint",
    "#7b8794": "faint",
    "#d5dce3": "rule",
    "#edf1f5": "band",
    "#ffffff": "paper",
    "#1f5fa8": "blue",
    "#7ba4d1": "sky",
    "#c2571a": "orange",
    "#b83232": "red",
    "#2f7d4f": "green",
    "#7a52a8": "purple",
    "#15808a": "teal",
    "#94751a": "ochre",
    "#a8447c": "pink",
}
"""Colours of plots that become variables of the style sheet, and the variables' names."""
LINES = {"#ffffff": "card", "#52606d": "wire"}
"""Colours of a block's drawing that become variables; boxes and the ink on them keep theirs."""
PNG_DPI = 140
LARGEST_SVG = 1_500_000
"""Characters of SVG above which a plot stands in the page as pixels."""


@dataclass(frozen=True)
class Picture:
    """A picture with a caption, as SVG for the page and as PNG for the Markdown."""

    name: str
    """Name of the picture's file, without a suffix."""
    svg: str
    """One <svg> element."""
    write_png: Callable[[Path], None]
    alt: str
    """What the picture shows, in words for those who do not see it."""
    caption: str = ""
    code: str = ""
    """The code of the block that the picture shows."""
    phone: str = ""
    """One <svg> element of the same for a phone, where the picture is as wide as the page."""


def plot(figure: Figure, name: str, alt: str, caption: str = "") -> Picture:
    """A picture of a matplotlib figure that is narrower than the page."""

    def write(path: Path) -> None:
        write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=PNG_DPI))

    return Picture(name, _svg(figure, name), write, alt, caption)


def wide_plot(draw: Callable[[float], Figure], name: str, alt: str, caption: str = "") -> Picture:
    """A picture as wide as the page: `draw` makes the figure for a width in inches."""
    picture = plot(draw(WIDTH), name, alt, caption)
    return replace(picture, phone=_svg(draw(PHONE), f"{name}-phone"))


def _svg(figure: Figure, name: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = inline(buffer.getvalue(), name, VARIABLES)
    if len(svg) <= LARGEST_SVG:
        return svg
    pixels = io.BytesIO()
    figure.savefig(pixels, format="png", dpi=PNG_DPI)
    return _as_image(pixels.getvalue())


def block_picture(block: Block, name: str, alt: str, caption: str) -> Picture:
    """A picture of a block's graph, with the block's code below it."""
    svg = inline(block_svg(block), name, LINES)
    return Picture(name, svg, partial(draw_block, block), alt, caption, str(block))


def search_picture(history: History, search: str) -> Picture:
    """A picture of a search's learning curve, which is titled with the search's name."""
    return wide_plot(
        partial(learning_curve, history, search),
        "search",
        "Accuracy and reward of the search by iteration",
        "Every dot is a trained candidate; bands are phases of epsilon, the share of random steps.",
    )


def _as_image(png: bytes) -> str:
    """An SVG element around a PNG: thousands of dots take fewer bytes that way."""
    width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}"><image width="{width}" height="{height}" '
        f'href="data:image/png;base64,{data}"/></svg>'
    )


def inline(svg: str, prefix: str, variables: dict[str, str]) -> str:
    """An SVG document as an element of a page: without prologue, comments and metadata, its ids
    begun with `prefix`, and the colours in `variables` as variables of the style sheet."""
    svg = svg[svg.index("<svg") :]
    parts = r"<!--.*?-->\s*|<metadata>.*?</metadata>\s*|<defs>\s*<style.*?</style>\s*</defs>\s*"
    svg = re.sub(parts, "", svg, flags=re.DOTALL)
    names = {id: f"{prefix}-{n}" for n, id in enumerate(re.findall(r'\bid="([^"]+)"', svg))}
    svg = re.sub(r'\bid="([^"]+)"', lambda match: f'id="{names[match[1]]}"', svg)
    svg = re.sub(r'href="#([^"]+)"', lambda match: f'href="#{names[match[1]]}"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", lambda match: f"url(#{names[match[1]]})", svg)
    svg = re.sub(
        r'(fill|stroke)="(#[0-9a-f]{6})"',
        lambda match: f'style="{match[1]}: {match[2]}"' if match[2] in variables else match[0],
        svg,
    )
    return re.sub(
        r"(fill|stroke): (#[0-9a-f]{6})",
        lambda match: (
            f"{match[1]}: var(--{variables[match[2]]}, {match[2]})"
            if match[2] in variables
            else match[0]
        ),
        svg,
    ).strip()
