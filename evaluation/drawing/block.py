"""A block's drawing, in the manner of the paper's figure 8: input on top, a box for each layer."""

import textwrap
from pathlib import Path

from blockqnn.space import WIRES, Block, Layer, Op, predecessors
from evaluation.drawing.canvas import (
    BOX_HEIGHT,
    HEAD_HEIGHT,
    HEAD_WIDTH,
    MARGIN,
    RADIUS,
    TITLE_SIZE,
    TITLE_STEP,
    Arrow,
    BlockDrawing,
    Box,
    Point,
    svg,
    write_png,
)
from evaluation.drawing.layout import Edge, lay_out

BOX_WIDTH, ROW_GAP, PORT_GAP = 102.0, 26.0, 12.0
TITLE_LINES = 3

ENDS = ("#e4e7eb", "#9aa5b1")
COLOURS = {
    Op.CONV: ("#cfe3fb", "#4a86c8"),
    Op.SEPARABLE: ("#c9ece8", "#3a9188"),
    Op.MAX_POOL: ("#fbd5cf", "#cf6a5b"),
    Op.AVG_POOL: ("#fde3c0", "#d1913c"),
    Op.IDENTITY: ("#f5f7fa", "#9aa5b1"),
    Op.ADD: ("#d3efd6", "#58a365"),
    Op.CONCAT: ("#e3d7f5", "#8a6abf"),
}
"""Fill and border of the boxes of each kind of layer."""
NAMES = {
    Op.CONV: "Conv",
    Op.SEPARABLE: "SepConv",
    Op.MAX_POOL: "MaxPool",
    Op.AVG_POOL: "AvgPool",
    Op.IDENTITY: "Identity",
    Op.ADD: "Add",
    Op.CONCAT: "Concat",
}


def draw_block(block: Block, path: Path, title: str = "") -> None:
    """Draw the block's graph to `path`, as SVG or PNG by the suffix (`ValueError` for others).

    The same block and title give the same bytes. Layers keep the numbers of the block's code; the
    bottom box is the concatenation of the leaves, or "Output" where there is nothing to join.
    """
    if path.suffix == ".svg":
        path.write_text(block_svg(block, title), encoding="utf-8")
    elif path.suffix == ".png":
        write_png(_compose(block, title), path)
    else:
        raise ValueError(f"cannot draw to {path}: the name must end in .svg or .png")


def block_svg(block: Block, title: str = "") -> str:
    """The drawing of `draw_block` as an SVG document."""
    return svg(_compose(block, title))


def layer_label(layer: Layer) -> str:
    """The name that a drawing gives a layer: "Conv 3x3", "Add"."""
    kernel = f" {layer.kernel}x{layer.kernel}" if layer.kernel else ""
    return NAMES[Op(layer.op)] + kernel


def _compose(block: Block, title: str) -> BlockDrawing:
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
    top = MARGIN + len(lines) * TITLE_STEP + (6 if lines else 0)
    y = _row_centres(layout.rows, x, lanes, top)

    boxes = [Box(x[0], y[0], BOX_WIDTH, "Input", *ENDS)]
    for layer in layers:
        place = (x[layer.index], y[layout.rows[layer.index]], BOX_WIDTH)
        colours = COLOURS[Op.IDENTITY if layer[1:3] in WIRES else Op(layer.op)]
        boxes.append(Box(*place, layer_label(layer), *colours, str(layer.index), str(layer)))
    name = "Concat" if joined > 1 else "Output"
    boxes.append(Box(x[output], y[-1], widths[output], name, *ENDS))

    arrows = []
    ports = _ports(edges, x, lanes, widths)
    for edge in edges:
        stops = [x[edge[0]], *lanes[edge], ports[edge]]
        arrows.append(_arrow(edge, stops, y[layout.rows[edge[0]] :]))
    height = y[-1] + BOX_HEIGHT / 2 + MARGIN
    return BlockDrawing(width, height, lines, tuple(boxes), tuple(arrows))


def _wrap(title: str, width: float) -> tuple[str, ...]:
    """The title in lines that fit, the last one cut short; control characters become spaces."""
    clean = "".join(c if c.isprintable() else " " for c in title)
    characters = int(width / (TITLE_SIZE * 0.68))
    return tuple(textwrap.wrap(clean, characters, max_lines=TITLE_LINES, placeholder=" …"))


def _row_centres(
    rows: tuple[int, ...], x: list[float], lanes: dict[Edge, tuple[float, ...]], top: float
) -> list[float]:
    """Vertical centre of each row; rows stand further apart where an arrow between them goes far
    sideways."""
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
    """The x at which each arrow meets its box: side by side, in the order in which they come."""
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


def _arrow(edge: Edge, stops: list[float], y: list[float]) -> Arrow:
    """An arrow through `stops`, an x for each row from the source's on: curved between rows and
    straight down beside the boxes of a row, so that it touches no box but its own two."""
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
    return Arrow(edge, (stops[0], y[0] + half), tuple(pieces))
