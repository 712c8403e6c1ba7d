"""Boxes, arrows and a title on paper: the shapes of a block's drawing, as SVG or PNG.

SVG is written directly rather than through matplotlib: its way to keep text as text is a global
setting, which threads would share, and it takes ten times as long. PNG is painted by matplotlib
from the very same boxes and curves. All lengths are in points, y downwards.
"""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from evaluation.drawing.layout import Edge

BOX_HEIGHT, RADIUS, MARGIN = 28.0, 7.0, 14.0
HEAD_WIDTH, HEAD_HEIGHT = 6.4, 7.5
FONT, FONT_SIZE, SMALL_SIZE, TITLE_SIZE, TITLE_STEP = "DejaVu Sans", 10.5, 6.5, 12.0, 16.0
INK, LINE, PAPER, FAINT = "#1f2933", "#52606d", "#ffffff", "#8595a3"
PNG_DPI = 150

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A rounded box: centre and size in points, y downwards; `number` is the layer's index."""

    x: float
    y: float
    width: float
    label: str
    fill: str
    border: str
    number: str = ""
    code: str = ""


@dataclass(frozen=True)
class Arrow:
    """An arrow from box to box in pieces: straight ones ("L", one point) and cubic ones ("C", three
    points)."""

    edge: Edge
    start: Point
    pieces: tuple[tuple[str, tuple[Point, ...]], ...]


@dataclass(frozen=True)
class BlockDrawing:
    """A drawing: its size in points, the title's lines, and what stands below them."""

    width: float
    height: float
    title: tuple[str, ...]
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def _head(arrow: Arrow) -> tuple[Point, Point, Point]:
    x, y = arrow.pieces[-1][1][-1]
    return ((x - HEAD_WIDTH / 2, y), (x + HEAD_WIDTH / 2, y), (x, y + HEAD_HEIGHT))


def svg(drawing: BlockDrawing) -> str:
    """The drawing as an SVG document; each arrow is a group "edge-SOURCE-TARGET"."""
    width, height = drawing.width, drawing.height
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.1f}" height="{height:.1f}" '
        f'viewBox="0 0 {width:.1f} {height:.1f}" font-family="{FONT}, Verdana, sans-serif" '
        f'font-size="{FONT_SIZE}" text-anchor="middle" fill="{INK}">'
    )
    parts = [head, f'<rect width="100%" height="100%" fill="{PAPER}"/>']
    for i, line in enumerate(drawing.title):
        y = MARGIN + TITLE_SIZE + TITLE_STEP * i
        parts.append(
            f'<text class="title" x="{width / 2:.1f}" y="{y:.1f}" font-size="{TITLE_SIZE}" '
            f'font-weight="bold">{escape(line)}</text>'
        )
    for arrow in drawing.arrows:
        parts.append(_svg_arrow(arrow))
    for box in drawing.boxes:
        parts.append(_svg_box(box))
    return "\n".join([*parts, "</svg>", ""])


def _svg_arrow(arrow: Arrow) -> str:
    line = f"M{_points((arrow.start,))}" + "".join(f"{c}{_points(p)}" for c, p in arrow.pieces)
    source, target = arrow.edge
    return (
        f'<g class="edge" id="edge-{source}-{target}">'
        f'<path d="{line}" fill="none" stroke="{LINE}" stroke-width="1.1"/>'
        f'<path d="M{_points(_head(arrow))}Z" fill="{LINE}"/></g>'
    )


def _svg_box(box: Box) -> str:
    left, top = box.x - box.width / 2, box.y - BOX_HEIGHT / 2
    number = (
        f"<title>{box.code}</title>"
        f'<text x="{left + 5:.1f}" y="{top + 8.5:.1f}" font-size="{SMALL_SIZE}" '
        f'text-anchor="start" fill="{FAINT}">{box.number}</text>'
    )
    return (
        f'<g class="box"><rect x="{left:.1f}" y="{top:.1f}" width="{box.width:.1f}" '
        f'height="{BOX_HEIGHT:.1f}" rx="{RADIUS:.1f}" fill="{box.fill}" stroke="{box.border}"/>'
        f"{number if box.number else ''}"
        f'<text x="{box.x:.1f}" y="{box.y + FONT_SIZE * 0.36:.1f}">{box.label}</text></g>'
    )


def _points(points: tuple[Point, ...]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def write_png(drawing: BlockDrawing, path: Path) -> None:
    """Write the drawing to `path` as PNG; the same drawing gives the same bytes."""
    # Imported here because it takes most of a second, which drawing SVG has no use for.
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
    from matplotlib.path import Path as Curve
    from matplotlib.transforms import Affine2D

    codes = {"L": [Curve.LINETO], "C": [Curve.CURVE4] * 3}
    figure = Figure(figsize=(drawing.width / 72, drawing.height / 72), facecolor=PAPER)
    points = Affine2D().scale(1 / 72, -1 / 72).translate(0, drawing.height / 72)
    transform = points + figure.dpi_scale_trans
    for arrow in drawing.arrows:
        vertices, steps = [arrow.start], [Curve.MOVETO]
        for letter, piece in arrow.pieces:
            vertices += piece
            steps += codes[letter]
        curve = Curve(vertices, steps)
        stroke = PathPatch(curve, fill=False, edgecolor=LINE, linewidth=1.1, transform=transform)
        figure.add_artist(stroke)
        figure.add_artist(Polygon(_head(arrow), color=LINE, linewidth=0, transform=transform))
    for box in drawing.boxes:
        left, top = box.x - box.width / 2, box.y - BOX_HEIGHT / 2
        figure.add_artist(
            FancyBboxPatch(
                (left, top),
                box.width,
                BOX_HEIGHT,
                boxstyle=f"round,pad=0,rounding_size={RADIUS}",
                facecolor=box.fill,
                edgecolor=box.border,
                linewidth=1,
                transform=transform,
            )
        )
        text: dict[str, Any] = {"transform": transform, "parse_math": False, "family": FONT}
        baseline = box.y + FONT_SIZE * 0.36
        figure.text(box.x, baseline, box.label, size=FONT_SIZE, color=INK, ha="center", **text)
        figure.text(left + 5, top + 8.5, box.number, size=SMALL_SIZE, color=FAINT, **text)
    for i, line in enumerate(drawing.title):
        y = MARGIN + TITLE_SIZE + TITLE_STEP * i
        figure.text(drawing.width / 2, y, line, size=TITLE_SIZE, weight="bold", ha="center", **text)
    figure.savefig(path, format="png", dpi=PNG_DPI, metadata={"Software": None})
