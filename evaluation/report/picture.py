"""A picture of the report: one drawing, inline in the page as SVG and as PNG beside the Markdown.

Drawings are made on white with the colours below; in the page each of these becomes a variable of
the style sheet, so that the same picture suits a light and a dark screen.
"""

import base64
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib.figure import Figure

from blockqnn.search.history import History
from blockqnn.space import Block
from blockqnn.storage import write_atomically
from evaluation.drawing import draw_block
from evaluation.plots.search import draw_search

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
"""Colours of plots that the page sets itself."""
LINES = {"#ffffff": "card", "#52606d": "wire"}
"""Those of a block's drawing: its boxes keep their colours, and the ink on them."""
PNG_DPI = 140
LARGEST_SVG = 1_500_000
"""Bytes above which a search's curve stands in the page as pixels."""


@dataclass(frozen=True)
class Picture:
    """A picture with its file name (no suffix), what it shows in words, and a caption.

    `svg` is made for the page, `write_png` for the Markdown.
    """

    name: str
    svg: str
    write_png: Callable[[Path], None]
    alt: str
    caption: str = ""
    code: str = ""
    wide: bool = True


def plot(figure: Figure, name: str, alt: str, caption: str = "", wide: bool = True) -> Picture:
    """A plate of a matplotlib figure."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})

    def write(path: Path) -> None:
        write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=PNG_DPI))

    svg = inline(buffer.getvalue(), name, VARIABLES)
    return Picture(name, svg, write, alt, caption, wide=wide)


def block_plate(block: Block, name: str, alt: str, caption: str) -> Picture:
    """A plate of a block's drawing, with the block's code below it."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "block.svg"
        draw_block(block, path)
        svg = inline(path.read_text(encoding="utf-8"), name, LINES)
    return Picture(name, svg, partial(draw_block, block), alt, caption, str(block), wide=False)


def search_plate(history: History, search: str) -> Picture:
    """A plate of a search's learning curve, which is titled with the search's name."""
    with TemporaryDirectory() as directory:
        place = Path(directory) / (re.sub(r"[/\0]", "-", search).strip(". ") or "search")
        place.mkdir()
        vector, pixels = place / "curve.svg", place / "curve.png"
        draw_search(history, vector)
        draw_search(history, pixels)
        png = pixels.read_bytes()
        if vector.stat().st_size <= LARGEST_SVG:
            svg = inline(vector.read_text(encoding="utf-8"), "search", VARIABLES)
        else:
            svg = _as_image(png)

    def write(path: Path) -> None:
        write_atomically(path, lambda file: file.write(png))

    return Picture(
        "search",
        svg,
        write,
        "Accuracy and reward of the search by iteration",
        "Every dot is a trained candidate; bands are phases of epsilon, the share of random steps.",
    )


def _as_image(png: bytes) -> str:
    """An SVG element around pixels: so many dots are smaller that way."""
    width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}"><image width="{width}" height="{height}" '
        f'href="data:image/png;base64,{data}"/></svg>'
    )


def inline(svg: str, prefix: str, variables: dict[str, str]) -> str:
    """An SVG document as an element of a page: no prologue, comments or metadata, ids of its own,
    colours as variables with themselves as what they fall back to."""
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
