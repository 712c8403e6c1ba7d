"""The published blocks are the ones of the paper's figures."""

import pytest

from blockqnn.space import Block, Op, Space, predecessors
from blockqnn.zoo import BLOCKS


def test_names():
    assert list(BLOCKS) == ["A", "B", "S", "inception", "residual", "plain"]


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_belong_to_the_papers_space(name):
    Space(23).check(BLOCKS[name])
    assert Block.parse(str(BLOCKS[name])) == BLOCKS[name]


def test_printed_codes():
    assert str(BLOCKS["inception"]) == (
        "(1,4,0,0,0)(2,1,1,1,0)(3,1,3,2,0)(4,1,1,1,0)(5,1,5,4,0)"
        "(6,6,0,3,5)(7,2,3,1,0)(8,1,1,7,0)(9,6,0,6,8)(10,7,0,0,0)"
    )
    assert str(BLOCKS["residual"]) == "(1,4,0,0,0)(2,1,3,1,0)(3,1,3,2,0)(4,5,0,1,3)(5,7,0,0,0)"


@pytest.mark.parametrize(
    ("name", "leaves"),
    [
        ("A", ["CONV 1", "CONV 3", "CONV 1", "AVG_POOL 3", "MAX_POOL 3"]),
        ("B", ["CONV 1", "ADD 0", "CONV 3", "AVG_POOL 3", "CONV 3"]),
        ("S", ["MAX_POOL 3", "ADD 0", "MAX_POOL 3", "CONV 3", "CONV 3", "CONV 1"]),
    ],
)
def test_leaves_drawn_in_figure_8(name, leaves):
    layers = [BLOCKS[name].layers[leaf - 1] for leaf in BLOCKS[name].leaves]
    assert sorted(f"{Op(layer.op).name} {layer.kernel}" for layer in layers) == sorted(leaves)


@pytest.mark.parametrize(("name", "density"), [("A", 19 / 15), ("B", 17 / 12), ("S", 22 / 16)])
def test_densities(name, density):
    assert BLOCKS[name].density == density


@pytest.mark.parametrize(
    ("name", "blocks", "skeleton", "depth"),
    [
        ("A", 12, "cifar", 25),
        ("B", 12, "cifar", 37),
        ("S", 6, "cifar", 19),
        ("S", 7, "cifar", 22),
        ("B", 12, "imagenet", 38),
        ("S", 12, "imagenet", 38),
    ],
)
def test_depths_printed_in_the_papers_tables(name, blocks, skeleton, depth):
    """The paper counts convolutions on the longest way through a network, but no projections."""
    chains = [0]
    for layer in BLOCKS[name].layers:
        before = max((chains[source] for source in predecessors(layer)), default=0)
        chains.append(before + (layer.op == Op.CONV))
    assert {"cifar": 1, "imagenet": 2}[skeleton] + blocks * max(chains) == depth


def test_published_blocks_are_all_different():
    assert len({block.key for block in BLOCKS.values()}) == len(BLOCKS)
