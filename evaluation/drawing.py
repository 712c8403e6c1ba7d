"""A block as a picture, in the manner of the paper's figure 8: the input on top, a box a layer.

SVG is written directly rather than through matplotlib: its way to keep text as text is a global
setting, which threads would share, and it takes ten times as long. PNG is painted by matplotlib
from the very same boxes and curves.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from html import escape
from pathlib import Path

from blockqnn.space import Block, Layer, Op, predecessors
from evaluation.layout import Edge, lay_out

BOX_WIDTH, BOX_HEIGHT, RADIUS = 102.0, 28.0, 7.0
ROW_GAP, MARGIN, PORT_GAP = 26.0, 14.0, 12.0
HEAD_WIDTH, HEAD_HEIGHT = 6.4, 7.5
FONT, FONT_SIZE, SMALL_SIZE, TITLE_SIZE, TITLE_LINES = "DejaVu Sans", 10.5, 6.5, 12.0, 3
INK, LINE, PAPER, FAINT = "#1f2933", "#52606d", "#ffffff", "#8595a3"
PNG_DPI = 160

ENDS = ("#e4e7eb", "#9aa5b1")
COLOURS = {
    Op.CONV: ("#cfe3fb", "#4a86c8"),
    Op.MAX_POOL: ("#fbd5cf", "#cf6a5b"),
    Op.AVG_POOL: ("#fde3c0", "#d1913c"),
    Op.IDENTITY: ("#f5f7fa", "#9aa5b1"),
    Op.ADD: ("#d3efd6", "#58a365"),
    Op.CONCAT: ("#e3d7f5", "#8a6abf"),
}
"""Fill and border of each kind's boxes."""
NAMES = {
    Op.CONV: "Conv",
    Op.MAX_POOL: "MaxPool",
    Op.AVG_POOL: "AvgPool",
    Op.IDENTITY: "Identity",
    Op.ADD: "Add",
    Op.CONCAT: "Concat",
}

Point = tuple[float, float]


@dataclass(frozen=True)
class _Box:
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
class _Arrow:
    """From box to box: straight ("L", one point) and cubic ("C", three points) pieces."""

    edge: Edge
    start: Point
    pieces: tuple[tuple[str, tuple[Point, ...]], ...]


@dataclass(frozen=True)
class _Picture:
    width: float
    height: float
    title: tuple[str, ...]
    boxes: tuple[_Box, ...]
    arrows: tuple[_Arrow, ...]


def draw_block(block: Block, path: Path, title: str = "") -> None:
    """Draws the block's graph to `path`, as SVG or PNG by the suffix (`ValueError` for others).

    The same block and title give the same bytes. Layers keep the numbers of the block's code; the
    bottom box is the concatenation of the leaves, or "Output" where there is nothing to join.
    """
    picture = _compose(block, title)
    if path.suffix == ".svg":
        path.write_text(_svg(picture), encoding="utf-8")
    elif path.suffix == ".png":
        _write_png(picture, path)
    else:
        raise ValueError(f"cannot draw to {path}: the name must end in .svg or .png")


def layer_label(layer: Layer) -> str:
    """What a person calls the layer: "Conv 3x3", "Add"."""
    kernel = f" {layer.kernel}x{layer.kernel}" if layer.kernel else ""
    return NAMES[Op(layer.op)] + kernel


def _compose(block: Block, title: str) -> _Picture:
    layers = block.layers[:-1]
    output = len(layers) + 1
    edges = [(p, layer.index) for layer in layers for p in predecessors(layer)]
    edges += [(leaf, output) for leaf in block.leaves or (0,)]
    joined = len(block.leaves)
    widths = [BOX_WIDTH] * output + [max(BOX_WIDTH, (joined + 1) * PORT_GAP)]
    layout = lay_out(widths, edges)

    width = max(layout.width, 2 * BOX_WIDTH) + 2 * MARGIN
    left = (width - layout.width) / 2
    x = [left + value for value in layout.x]
    lanes = {edge: tuple(left + value for value in lane) for edge, lane in layout.lanes.items()}
    lines = _wrap(title, width - 2 * MARGIN)
    top = MARGIN + len(lines) * TITLE_SIZE * 1.35 + (6 if lines else 0)
    y = _row_centres(layout.rows, x, lanes, top)

    boxes = [_Box(x[0], y[0], BOX_WIDTH, "Input", *ENDS)]
    for layer in layers:
        place = (x[layer.index], y[layout.rows[layer.index]], BOX_WIDTH)
        colours = COLOURS[Op(layer.op)]
        boxes.append(_Box(*place, layer_label(layer), *colours, str(layer.index), str(layer)))
    name = "Concat" if joined > 1 else "Output"
    boxes.append(_Box(x[output], y[-1], widths[output], name, *ENDS))

    arrows = []
    ports = _ports(edges, x, lanes, widths)
    for edge in edges:
        stops = [x[edge[0]], *lanes[edge], ports[edge]]
        arrows.append(_arrow(edge, stops, y[layout.rows[edge[0]] :]))
    height = y[-1] + BOX_HEIGHT / 2 + MARGIN
    return _Picture(width, height, lines, tuple(boxes), tuple(arrows))


def _wrap(title: str, width: float) -> tuple[str, ...]:
    """The title in lines that fit, the last one cut short; control characters become spaces."""
    clean = "".join(c if c.isprintable() else " " for c in title)
    characters = int(width / (TITLE_SIZE * 0.68))
    return tuple(textwrap.wrap(clean, characters, max_lines=TITLE_LINES, placeholder=" …"))


def _row_centres(
    rows: tuple[int, ...], x: list[float], lanes: dict[Edge, tuple[float, ...]], top: float
) -> list[float]:
    """Rows stand further apart where an arrow between them goes far sideways."""
    reach = [0.0] * (max(rows) + 1)
    for (source, target), lane in lanes.items():
        stops = [x[source], *lane, x[target]]
        for i in range(len(stops) - 1):
            row = rows[source] + i
            reach[row] = max(reach[row], abs(stops[i + 1] - stops[i]))
    y = [top + BOX_HEIGHT / 2]
    for distance in reach[:-1]:
        y.append(y[-1] + BOX_HEIGHT + ROW_GAP + min(30.0, distance / 9))
    return y


def _ports(
    edges: list[Edge], x: list[float], lanes: dict[Edge, tuple[float, ...]], widths: list[float]
) -> dict[Edge, float]:
    """Where each arrow meets its box: side by side, in the order in which the arrows come."""
    ports: dict[Edge, float] = {}
    for target in range(1, len(x)):
        origin = {edge: (x[edge[0]], *lanes[edge])[-1] for edge in edges if edge[1] == target}
        arriving = sorted(origin, key=lambda edge: origin[edge])
        if len(arriving) == 1:
            ports[arriving[0]] = x[target]
            continue
        room = widths[target] / 2 - RADIUS - HEAD_WIDTH / 2
        last = x[target] - room - PORT_GAP
        for i, edge in enumerate(arriving):
            still_to_come = (len(arriving) - 1 - i) * PORT_GAP
            port = min(origin[edge], x[target] + room - still_to_come)
            last = ports[edge] = max(port, last + PORT_GAP)
    return ports


def _arrow(edge: Edge, stops: list[float], y: list[float]) -> _Arrow:
    """Through `stops`, one x a row from the source's row on: curved between rows, straight down
    beside the boxes of a row, so that no arrow can touch a box that is not its own."""
    half = BOX_HEIGHT / 2
    pieces: list[tuple[str, tuple[Point, ...]]] = []
    for i in range(1, len(stops)):
        before, after = (stops[i - 1], y[i - 1] + half), (stops[i], y[i] - half)
        last = i == len(stops) - 1
        if last:
            after = (after[0], after[1] - HEAD_HEIGHT)
        if abs(before[0] - after[0]) < 0.05:
            pieces.append(("L", (after,)))
        else:
            middle = (before[1] + after[1]) / 2
            pieces.append(("C", ((before[0], middle), (after[0], middle), after)))
        if not last:
            pieces.append(("L", ((stops[i], y[i] + half),)))
    return _Arrow(edge, (stops[0], y[0] + half), tuple(pieces))


def _head(arrow: _Arrow) -> tuple[Point, Point, Point]:
    x, y = arrow.pieces[-1][1][-1]
    return ((x - HEAD_WIDTH / 2, y), (x + HEAD_WIDTH / 2, y), (x, y + HEAD_HEIGHT))


def _svg(picture: _Picture) -> str:
    width, height = picture.width, picture.height
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.1f}" height="{height:.1f}" '
        f'viewBox="0 0 {width:.1f} {height:.1f}" font-family="{FONT}, Verdana, sans-serif" '
        f'font-size="{FONT_SIZE}" text-anchor="middle" fill="{INK}">',
        f'<rect width="100%" height="100%" fill="{PAPER}"/>',
    ]
    for i, line in enumerate(picture.title):
        y = MARGIN + TITLE_SIZE * (0.95 + 1.35 * i)
        parts.append(
            f'<text class="title" x="{width / 2:.1f}" y="{y:.1f}" font-size="{TITLE_SIZE}" '
            f'font-weight="bold">{escape(line)}</text>'
        )
    for arrow in picture.arrows:
        parts.append(_svg_arrow(arrow))
    for box in picture.boxes:
        parts.append(_svg_box(box))
    return "\n".join([*parts, "</svg>", ""])


def _svg_arrow(arrow: _Arrow) -> str:
    line = f"M{_points((arrow.start,))}" + "".join(f"{c}{_points(p)}" for c, p in arrow.pieces)
    source, target = arrow.edge
    return (
        f'<g class="edge" id="edge-{source}-{target}">'
        f'<path d="{line}" fill="none" stroke="{LINE}" stroke-width="1.1"/>'
        f'<path d="M{_points(_head(arrow))}Z" fill="{LINE}"/></g>'
    )


def _svg_box(box: _Box) -> str:
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


def _write_png(picture: _Picture, path: Path) -> None:
    # Imported here because it takes most of a second, which drawing SVG has no use for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
    from matplotlib.path import Path as Curve
    from matplotlib.transforms import Affine2D

    codes = {"L": [Curve.LINETO], "C": [Curve.CURVE4] * 3}
    figure = Figure(figsize=(picture.width / 72, picture.height / 72), facecolor=PAPER)
    canvas = FigureCanvasAgg(figure)
    points = Affine2D().scale(1 / 72, -1 / 72).translate(0, picture.height / 72)
    transform = points + figure.dpi_scale_trans
    for arrow in picture.arrows:
        vertices, steps = [arrow.start], [Curve.MOVETO]
        for letter, piece in arrow.pieces:
            vertices += piece
            steps += codes[letter]
        curve = Curve(vertices, steps)
        line = PathPatch(curve, fill=False, edgecolor=LINE, linewidth=1.1, transform=transform)
        figure.add_artist(line)
        figure.add_artist(Polygon(_head(arrow), color=LINE, linewidth=0, transform=transform))
    for box in picture.boxes:
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
        text = {"transform": transform, "parse_math": False, "family": FONT}
        baseline = box.y + FONT_SIZE * 0.36
        figure.text(box.x, baseline, box.label, size=FONT_SIZE, color=INK, ha="center", **text)
        figure.text(left + 5, top + 8.5, box.number, size=SMALL_SIZE, color=FAINT, **text)
    for i, line in enumerate(picture.title):
        y = MARGIN + TITLE_SIZE * (0.95 + 1.35 * i)
        figure.text(picture.width / 2, y, line, size=TITLE_SIZE, weight="bold", ha="center", **text)
    canvas.print_png(path, metadata={"Software": None})
