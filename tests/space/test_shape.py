"""The shape of a network as a choice: which there are, how they are written, what is near."""

import numpy as np
import pytest
import torch

from blockqnn.errors import SettingsError
from blockqnn.network import build_network
from blockqnn.settings import SpaceSettings
from blockqnn.space import AS_SET, Block, Shape, ShapedBlock, Space, design_of
from blockqnn.zoo import BLOCKS, named_design

OFFERED = {"skeletons": ("cifar", "half"), "repeats": (1, 2), "connections": ("none", "concat")}


def space(**given):
    return SpaceSettings(max_index=3, **given).designs(2)


def test_every_shape_is_offered_once():
    """2 skeletons, 2 x 2 repeats, 2 connections; concat joins nothing where all have one block."""
    shapes = space(**OFFERED).shapes
    found = {(s.skeleton, s.repeats, s.connections) for s in shapes}
    repeats = [(1, 1), (1, 2), (2, 1), (2, 2)]
    expected = {(k, r, c) for k in ("cifar", "half") for r in repeats for c in ("none", "concat")}
    expected -= {("cifar", (1, 1), "concat"), ("half", (1, 1), "concat")}
    assert found == expected
    assert len(shapes) == 14
    assert {(s.skeleton, s.repeats, s.connections) for s in space(repeats=[3]).shapes} == {
        (None, (3, 3), None)
    }


def test_networks_may_have_fewer_stages():
    """4 with two stages, 8 with three; a stage more is one step away."""
    offered = SpaceSettings(max_index=3, stages=(2, 3), repeats=(1, 2)).designs(3)
    assert sorted(len(shape.repeats) for shape in offered.shapes) == [2] * 4 + [3] * 8
    rng = np.random.default_rng(0)
    near = set()
    for _ in range(300):
        design = ShapedBlock(Shape(repeats=(1, 2)), BLOCKS["plain"])
        near.add(offered.mutate(design, rng).shape.repeats)
    assert near == {(1, 2), (1, 1), (2, 2), (1, 2, 1), (1, 2, 2)}


def test_blocks_alone_are_designed_where_no_shape_is_offered():
    assert space() == Space(3)


def test_walks_choose_a_shape_and_then_the_layers_of_a_block():
    offered = space(**OFFERED)
    assert offered.choices([]) == offered.shapes == offered.next_layers(1)
    rng = np.random.default_rng(0)
    for _ in range(50):
        layers = []
        while choices := offered.choices(layers):
            assert set(choices) <= set(offered.next_layers(len(layers) + 1))
            layers.append(choices[rng.integers(len(choices))])
        design = offered.design(layers)
        offered.check(design)
        assert design.layers == tuple(layers)
        Space(3).check(design.block)
    assert len({offered.sample(rng).shape for _ in range(500)}) == len(offered.shapes)


def test_a_mutation_changes_one_thing():
    offered = space(**OFFERED)
    rng = np.random.default_rng(1)
    changed = {"shape": 0, "block": 0}
    for _ in range(300):
        before = offered.sample(rng)
        after = offered.mutate(before, rng)
        offered.check(after)
        if before.shape == after.shape:
            changed["block"] += before.block != after.block
            continue
        assert before.block == after.block
        old, new = before.shape, after.shape
        parts = [old.skeleton != new.skeleton, old.connections != new.connections]
        parts += [a != b for a, b in zip(old.repeats, new.repeats, strict=True)]
        assert sum(parts) == 1
        changed["shape"] += 1
    assert min(changed.values()) > 50


def test_designs_share_a_key_exactly_when_their_networks_are_the_same():
    pool_of_one = Block.parse("(1,1,3,0,0)(2,2,1,1,0)(3,7,0,0,0)")  # it computes nothing
    alone = Block.parse("(1,1,3,0,0)(2,7,0,0,0)")
    keys = {
        ShapedBlock(Shape.parse(text), block).key
        for text in ("half:1-2", "1-2:half", "cifar:1-2", "half:2-1", "half:1-2:shortcut")
        for block in (pool_of_one, alone)
    }
    assert len(keys) == 4
    assert alone.key not in keys


EMPTY = Block.parse("(1,7,0,0,0)")
CONV = Block.parse("(1,1,3,0,0)(2,7,0,0,0)")
POOL = Block.parse("(1,2,3,0,0)(2,7,0,0,0)")
FORK = Block.parse("(1,4,0,0,0)(2,1,3,1,0)(3,1,3,1,0)(4,7,0,0,0)")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((BLOCKS["plain"], "1-2:shortcut"), (BLOCKS["residual"], "1-2:none"), True),
        ((BLOCKS["plain"], "1-2:shortcut"), (BLOCKS["residual"], "2-1:none"), False),
        ((BLOCKS["plain"], "1-2:shortcut"), (BLOCKS["plain"], "1-2:none"), False),
        ((BLOCKS["residual"], "1-2:shortcut"), (BLOCKS["residual"], "1-2:none"), False),
        ((CONV, "2-4:none"), (BLOCKS["plain"], "1-2:none"), True),
        ((CONV, "2-4:shortcut"), (BLOCKS["plain"], "1-2:shortcut"), False),
        ((CONV, "2-2:none"), (BLOCKS["plain"], "1-2:none"), False),
        ((CONV, "2-2:concat"), (CONV, "2-2:none"), False),
        ((POOL, "1-2:shortcut"), (POOL, "1-2:none"), False),
        ((FORK, "1-2:shortcut"), (FORK, "1-2:none"), False),
        ((EMPTY, "1-2:none"), (EMPTY, "3-3:none"), True),
        ((EMPTY, "1-2:none"), (EMPTY, "1-2-1:none"), False),
        ((EMPTY, "1-2:shortcut"), (EMPTY, "3-3:shortcut"), False),
    ],
)
def test_one_network_has_one_key(one, other, same):
    """The networks are built, and given the same weights they say the same, or they do not."""
    designs = [ShapedBlock(Shape.parse(text), block) for block, text in (one, other)]
    assert (designs[0].key == designs[1].key) == same
    torch.manual_seed(0)
    networks = [
        build_network(
            design.block,
            filters=(4, 6, 8)[: len(design.shape.repeats)],
            repeats=design.shape.repeats,
            connections=design.shape.connections,
            num_classes=3,
        ).eval()
        for design in designs
    ]
    first, second = (list(network.parameters()) for network in networks)
    fits = [a.shape for a in first] == [b.shape for b in second]
    if fits:
        with torch.no_grad():
            for a, b in zip(first, second, strict=True):
                b.copy_(a)
    images = torch.randn(2, 3, 8, 8)
    assert (fits and torch.allclose(*(network(images) for network in networks))) == same


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("", AS_SET),
        ("2", Shape(repeats=(2,))),
        ("1-2-1", Shape(repeats=(1, 2, 1))),
        ("half:1-2:shortcut", Shape(skeleton="half", repeats=(1, 2), connections="shortcut")),
        ("none:imagenet", Shape(skeleton="imagenet", connections="none")),
    ],
)
def test_the_text_of_a_shape(text, shape):
    assert Shape.parse(text) == Shape.parse(str(shape)) == shape
    assert Shape.from_dict({**shape.to_dict(), "code": "(1,7,0,0,0)"}) == shape


def test_a_block_is_named_with_the_shape_of_its_network():
    code = str(BLOCKS["S"])
    block, shape = BLOCKS["residual"], Shape(skeleton="half", repeats=(1, 2))
    assert named_design("residual:half:1-2") == ("residual:half:1-2", block, shape)
    assert named_design("residual") == ("residual", block, AS_SET)
    label, block, shape = named_design(f"{code}:shortcut")
    assert (block, shape.connections) == (BLOCKS["S"], "shortcut")
    assert label == f"block-{BLOCKS['S'].key[:6]}:shortcut"
    assert named_design(str(design_of(block, shape)))[1:] == (block, shape)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "plain:huge",
            "blocks has 'plain:huge': 'huge' is no part of a network's shape: give cifar",
        ),
        ("plain:0", "'0' is no part"),
        ("plain:1-", "'1-' is no part"),
        ("plain:half:cifar", "'cifar' is a second value for skeleton: give one"),
        ("plian:2", "give one of A, B, S"),
    ],
)
def test_what_is_no_design(text, message):
    with pytest.raises(SettingsError, match=message):
        named_design(text)


def test_too_many_shapes_are_refused():
    offered = SpaceSettings(repeats=tuple(range(1, 9)))
    assert len(offered.designs(4).shapes) == 8**4
    with pytest.raises(SettingsError, match="space.repeats is .* they make 32,768 shapes"):
        offered.designs(5)


@pytest.mark.parametrize("text", [None, 5, ["half"], {}])
def test_a_shape_is_a_text(text):
    with pytest.raises(ValueError, match="a shape is a text, not"):
        Shape.parse(text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"skeleton": "vgg"}, "skeleton is 'vgg': give cifar, half or imagenet"),
        ({"skeleton": ["half"]}, "skeleton is .'half'.: give cifar"),
        ({"connections": 5}, "connections is 5: give none, shortcut or concat"),
        ({"repeats": [1, 0]}, "repeats is .1, 0.: give numbers of 1 or more"),
        ({"repeats": []}, "repeats is .*: give numbers of 1 or more"),
        ({"filters": [8, "x"]}, "filters is .8, 'x'.: give numbers of 1 or more"),
        ({"filters": [8, True]}, "filters is .8, True.: give numbers of 1 or more"),
    ],
)
def test_values_of_a_file_that_make_no_shape(values, message):
    with pytest.raises(ValueError, match=message):
        Shape.from_dict(values)
