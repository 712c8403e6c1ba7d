"""The numbers that describe a block, by hand, and that they do not depend on how it is written."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockqnn.cost import network_cost
from blockqnn.space import Block, Layer, Op, Space, predecessors
from blockqnn.surrogate import block_features
from blockqnn.surrogate.features import FEATURES
from blockqnn.zoo import BLOCKS

SEEDS = st.integers(0, 2**32)


def described(block: Block) -> dict[str, float]:
    cost = network_cost(block, filters=(8, 16), repeats=1, num_classes=10)
    return dict(zip(FEATURES, block_features(block, cost).tolist(), strict=True))


def test_the_inception_block_by_hand():
    """Input to 1x1 to 3x3; to 1x1 to 5x5; to max pool to 1x1: concatenated twice, three wide."""
    found = described(BLOCKS["inception"])
    expected = {
        "conv1": 3,
        "conv3": 1,
        "conv5": 1,
        "max_pool3": 1,
        "avg_pool3": 0,
        "add": 0,
        "concat": 2,
        "leaf concat": 1,
        "leaf input": 0,
        "edges to leaves": 1,
        "convolutions": 5,
        "layers": 8,
        "most convolutions on a path": 2,
        "fewest convolutions on a path": 1,
        "mean convolutions on a path": 5 / 3,
        "most layers on a path": 4,
        "log2 paths": np.log2(3),
        "largest receptive field": 5,
        "smallest receptive field": 3,
        "mean receptive field": (3 + 5 + 3) / 3,
        "log2 output width": np.log2(3),
        "log2 output width without convolutions": 0,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_an_added_shortcut_is_a_path_without_convolutions():
    found = described(BLOCKS["residual"])
    expected = {
        "most convolutions on a path": 2,
        "fewest convolutions on a path": 0,
        "mean convolutions on a path": 1,
        "smallest receptive field": 1,
        "log2 output width": 0,
        "log2 output width without convolutions": 1,  # one filter wide: log2(1 + 1)
        "leaf add": 1,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_cost_is_that_of_the_network():
    block = BLOCKS["plain"]
    cost = network_cost(block, filters=(8, 16), repeats=1, num_classes=10)
    found = described(block)
    assert 2 ** found["log2 macs"] == pytest.approx(cost.macs)
    assert 2 ** found["log2 parameters"] == pytest.approx(cost.parameters)
    assert 2 ** found["log2 activation bytes"] == pytest.approx(cost.activation_bytes)


def test_what_computes_nothing_is_not_a_layer():
    bare = described(Block.parse("(1,1,3,0,0)(2,7,0,0,0)"))
    wires = described(Block.parse("(1,2,1,0,0)(2,1,3,1,0)(3,4,0,2,0)(4,3,1,3,0)(5,7,0,0,0)"))
    assert wires == bare


def test_the_empty_block_passes_its_input():
    found = described(Block.parse("(1,7,0,0,0)"))
    assert found["leaf input"] == 1
    assert found["layers"] == found["convolutions"] == found["log2 output width"] == 0


@given(SEEDS)
def test_written_otherwise_the_same_graph_has_the_same_features(seed):
    rng = np.random.default_rng(seed)
    block = Space(12).sample(rng)
    other = rewritten(block, rng)
    assert other.key == block.key
    assert described(other) == pytest.approx(described(block))


@given(SEEDS)
def test_blocks_of_the_papers_space_have_finite_features(seed):
    found = described(Space(23).sample(np.random.default_rng(seed)))
    assert np.isfinite(list(found.values())).all()


def rewritten(block: Block, rng: np.random.Generator) -> Block:
    """Behind an identity, layers in another topological order, operands swapped at random."""
    waiting = list(block.layers[:-1])
    numbers = {0: 1}
    layers = [Layer(1, Op.IDENTITY, 0, 0, 0)]
    while waiting:
        ready = [layer for layer in waiting if all(p in numbers for p in predecessors(layer))]
        layer = ready[rng.integers(len(ready))]
        waiting.remove(layer)
        read = [numbers[p] for p in predecessors(layer)]
        rng.shuffle(read)
        index = len(layers) + 1
        numbers[layer.index] = index
        layers.append(Layer(index, layer.op, layer.kernel, *(read + [0])[:2]))
    return Block((*layers, Layer(len(layers) + 1, Op.TERMINAL, 0, 0, 0)))
