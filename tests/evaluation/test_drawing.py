"""What a person sees in the drawing of a block."""

import re
import xml.etree.ElementTree as ET
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from blockqnn.space import V2, Block, Layer, Op, Space, predecessors
from blockqnn.zoo import BLOCKS
from evaluation.drawing import draw_block
from evaluation.drawing.block import COLOURS, NAMES, block_svg, layer_label

SVG = "{http://www.w3.org/2000/svg}"
EMPTY = Block.parse("(1,7,0,0,0)")
WIDE = Block.parse(
    "".join(["(1,4,0,0,0)", *(f"({i},1,3,1,0)" for i in range(2, 23)), "(23,7,0,0,0)"])
)


def full_block(seed: int) -> Block:
    """A random block of 22 layers, each kind equally likely."""
    rng = np.random.default_rng(seed)
    layers: list[Layer] = []
    for index in range(1, 23):
        legal = [layer for layer in Space(23).next_layers(index) if layer.op != Op.TERMINAL]
        kinds = sorted({layer.op for layer in legal})
        kind = kinds[rng.integers(len(kinds))]
        of_kind = [layer for layer in legal if layer.op == kind]
        layers.append(of_kind[rng.integers(len(of_kind))])
    return Block((*layers, Layer(23, Op.TERMINAL, 0, 0, 0)))


DRAWN = {**BLOCKS, "empty": EMPTY, "wide": WIDE, **{f"full {s}": full_block(s) for s in range(12)}}
DRAWN |= {f"V2 {s}": V2.sample(np.random.default_rng(s)) for s in range(4)}


def drawn(block: Block, directory: Path, title: str = "") -> ET.Element:
    path = directory / "block.svg"
    draw_block(block, path, title)
    return ET.parse(path).getroot()


def boxes(root: ET.Element) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of every box, in the order input, layers, output."""
    rects = [
        group.find(f"{SVG}rect") for group in root.iter(f"{SVG}g") if group.get("class") == "box"
    ]
    found = []
    for rect in rects:
        assert rect is not None
        left, top, width, height = (float(rect.get(n, "")) for n in ("x", "y", "width", "height"))
        found.append((left, top, left + width, top + height))
    return found


def arrows(root: ET.Element) -> dict[tuple[int, int], list[tuple[float, float]]]:
    """Points along every arrow, the head's tip last, by source and target."""
    found = {}
    for group in root.iter(f"{SVG}g"):
        if group.get("class") == "edge":
            source, target = map(int, group.get("id", "").removeprefix("edge-").split("-"))
            line, head = (path.get("d", "") for path in group.iter(f"{SVG}path"))
            found[source, target] = [*walk(line), numbers(head)[-1]]
    return found


def numbers(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", text)]


def walk(line: str) -> list[tuple[float, float]]:
    points = numbers(line[: re.search("[LC]", line).start()])  # type: ignore[union-attr]
    for letter, rest in re.findall(r"([LC])([^LC]*)", line):
        corners = np.array([points[-1], *numbers(rest)])
        t = np.linspace(0, 1, 25)[1:, None]
        if letter == "L":
            curve = (1 - t) * corners[0] + t * corners[1]
        else:
            weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
            curve = weights @ corners
        points += [(x, y) for x, y in curve.tolist()]
    return points


@pytest.mark.parametrize("name", DRAWN)
def test_every_layer_is_named_and_every_link_is_an_arrow(name: str, tmp_path: Path) -> None:
    block = DRAWN[name]
    root = drawn(block, tmp_path)
    output = len(block.layers)

    last = "Concat" if len(block.leaves) > 1 else "Output"
    expected = Counter(["Input", last, *map(layer_label, block.layers[:-1])])
    texts = Counter(
        text.text for text in root.iter(f"{SVG}text") if text.get("x") and text.get("y")
    )
    assert expected <= texts
    links = {(p, layer.index) for layer in block.layers for p in predecessors(layer)}
    links |= {(leaf, output) for leaf in block.leaves or (0,)}
    assert set(arrows(root)) == links


@pytest.mark.parametrize("name", DRAWN)
def test_boxes_keep_apart_and_arrows_pass_beside_them(name: str, tmp_path: Path) -> None:
    root = drawn(DRAWN[name], tmp_path)
    placed = boxes(root)
    for a, b in combinations(placed, 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    assert all(a[0] > 0 and a[1] > 0 and a[2] < width and a[3] < height for a in placed)

    for (source, target), points in arrows(root).items():
        x, y = np.array(points).T
        for number, (left, top, right, bottom) in enumerate(placed):
            inside = (x > left + 0.2) & (x < right - 0.2) & (y > top + 0.2) & (y < bottom - 0.2)
            assert not inside.any(), f"arrow {source}-{target} runs through box {number}"
        start, end = placed[source], placed[target]
        assert start[0] < x[0] < start[2] and y[0] == pytest.approx(start[3], abs=0.2)
        assert end[0] < x[-1] < end[2] and y[-1] == pytest.approx(end[1], abs=0.2)
        assert (np.diff(y) >= 0).all(), "data flows from the top to the bottom"


def test_arrows_that_meet_in_a_box_keep_apart(tmp_path: Path) -> None:
    ends = sorted(
        points[-1][0] for (_, t), points in arrows(drawn(WIDE, tmp_path)).items() if t == 23
    )
    assert len(ends) == 21
    assert min(np.diff(ends)) > 6.4  # the width of an arrow's head


def test_labels() -> None:
    labels = [layer_label(layer) for layer in BLOCKS["B"].layers[:9]]
    assert labels == [
        "Identity", "Conv 1x1", "Conv 3x3", "Conv 5x5", "Add", "Concat", "Conv 3x3", "Conv 5x5",
        "AvgPool 3x3",
    ]  # fmt: skip


def test_every_kind_has_a_label_and_a_colour_of_its_own() -> None:
    layers = [layer for layer in V2.next_layers(3) if layer.op != Op.TERMINAL and layer.pred1 == 1]
    assert [layer_label(layer) for layer in layers] == [
        "SepConv 3x3", "SepConv 5x5", "Conv 1x1", "MaxPool 3x3", "AvgPool 3x3", "Identity", "Add",
        "Concat",
    ]  # fmt: skip
    assert set(NAMES) == set(COLOURS) == set(Op) - {Op.TERMINAL}
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_a_pooling_of_kernel_1_looks_like_the_wire_that_it_is() -> None:
    pale, _ = COLOURS[Op.IDENTITY]
    for code, count in (("(1,2,1,0,0)(2,4,0,1,0)(3,3,1,2,0)", 3), ("(1,2,3,0,0)(2,3,3,1,0)", 0)):
        block = Block.parse(f"{code}({code.count('(') + 1},7,0,0,0)")
        assert block_svg(block).count(f'fill="{pale}"') == count


def test_a_chain_is_drawn_straight_down(tmp_path: Path) -> None:
    block = Block.parse("(1,1,1,0,0)(2,1,3,1,0)(3,7,0,0,0)")
    centres = {(left + right) / 2 for left, _, right, _ in boxes(drawn(block, tmp_path))}
    assert len(centres) == 1


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_same_block_gives_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.{suffix}" for i in range(2)]
    for path in paths:
        draw_block(BLOCKS["S"], path, "S")
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("name", ["A", "empty", "full 0"])
def test_png_shows_something(name: str, tmp_path: Path) -> None:
    draw_block(DRAWN[name], tmp_path / "block.png", "a title")
    image = imread(tmp_path / "block.png")[..., :3]
    assert min(image.shape[:2]) > 150
    inked = (image < 0.95).any(axis=-1)
    assert 0.02 < inked.mean() < 0.9
    assert not inked[:5].any() and not inked[:, :5].any(), "there is a margin"


def test_a_title_of_any_length_and_characters_fits(tmp_path: Path) -> None:
    title = "<search> & $x$ \x00 'ünïcode' " + "very_long_name_" * 30
    root = drawn(BLOCKS["residual"], tmp_path, title)
    lines = [text.text or "" for text in root.iter(f"{SVG}text") if text.get("class") == "title"]
    assert 1 < len(lines) <= 3
    assert lines[0].startswith("<search> & $x$") and lines[-1].endswith("…")
    assert max(map(len, lines)) * 12 * 0.6 < float(root.get("width", ""))
    draw_block(BLOCKS["residual"], tmp_path / "block.png", title)


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"block\.pdf: the name must end in \.svg or \.png"):
        draw_block(EMPTY, tmp_path / "block.pdf")
    assert not list(tmp_path.iterdir())
