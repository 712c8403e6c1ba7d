"""Keys are equal exactly for equal graphs; networkx's isomorphism test is the judge."""

import os
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockqnn.space import V2, Block, Layer, Op, Space
from blockqnn.zoo import BLOCKS

ROOT = Path(__file__).resolve().parents[2]
SEEDS = st.integers(0, 2**32)
PROPERTY = settings(max_examples=60, deadline=None)


def reads(layer):
    return layer[3:] if layer.op in (Op.ADD, Op.CONCAT) else layer[3:4]


def graph_of(block):
    """The block's graph, layers that compute nothing contracted one by one, made without the code
    under test.
    """
    graph = nx.MultiDiGraph()
    graph.add_node(0, label="input")
    for layer in block.layers[:-1]:
        graph.add_node(layer.index, label=(layer.op, layer.kernel))
        graph.add_edges_from((source, layer.index) for source in reads(layer))
    leaves = [node for node in graph if graph.out_degree(node) == 0]
    graph.add_node("output", label="output")
    graph.add_edges_from((leaf, "output") for leaf in leaves)
    for layer in block.layers:
        if layer.op == Op.IDENTITY or layer.kernel == 1 and layer.op in (Op.MAX_POOL, Op.AVG_POOL):
            (source,) = graph.predecessors(layer.index)
            targets = [target for _, target in graph.out_edges(layer.index)]
            graph.add_edges_from((source, target) for target in targets)
            graph.remove_node(layer.index)
    return graph


def same_graph(one, other):
    def same_label(a, b):
        return a["label"] == b["label"]

    return nx.is_isomorphic(graph_of(one), graph_of(other), node_match=same_label)


def sample(seed, max_index=23):
    return Space(max_index).sample(np.random.default_rng(seed))


def rebuilt(layers):
    """A block from layers whose indices are any labels: numbered in the order given."""
    number = {0: 0} | {layer.index: place for place, layer in enumerate(layers, start=1)}
    body = [
        Layer(number[layer.index], layer.op, layer.kernel, *(number[p] for p in layer[3:]))
        for layer in layers
    ]
    return Block((*body, Layer(len(layers) + 1, 7, 0, 0, 0)))


def renumbered(block, rng):
    """The same layers in another order that still puts sources first, operands shuffled."""
    waiting, done, order = list(block.layers[:-1]), {0}, []
    while waiting:
        ready = [layer for layer in waiting if set(reads(layer)) <= done]
        layer = ready[rng.integers(len(ready))]
        waiting.remove(layer)
        done.add(layer.index)
        if layer.op in (Op.ADD, Op.CONCAT) and rng.random() < 0.5:
            layer = layer._replace(pred1=layer.pred2, pred2=layer.pred1)
        order.append(layer)
    return rebuilt(order)


def with_identity(block, rng):
    """The block with an identity put into one random edge, one to the output included."""
    layers = list(block.layers[:-1])
    new = 1000
    place = int(rng.integers(len(layers) + 1))
    if place == len(layers):
        if not layers:
            return rebuilt([Layer(new, Op.IDENTITY, 0, 0, 0)])
        leaf = block.leaves[rng.integers(len(block.leaves))]
        return rebuilt([*layers, Layer(new, Op.IDENTITY, 0, leaf, 0)])
    reader = layers[place]
    field = ("pred1", "pred2")[rng.integers(len(reads(reader)))]
    source = getattr(reader, field)
    layers[place] = reader._replace(**{field: new})
    return rebuilt([*layers[:place], Layer(new, Op.IDENTITY, 0, source, 0), *layers[place:]])


def mutated(block, rng):
    """The block with one layer replaced by a random legal one."""
    layers = list(block.layers)
    if len(layers) == 1:
        return sample(int(rng.integers(1000)), 3)
    place = int(rng.integers(len(layers) - 1))
    choices = Space(23).next_layers(place + 1)[:-1]
    layers[place] = choices[rng.integers(len(choices))]
    return Block(tuple(layers))


@PROPERTY
@given(seed=SEEDS)
def test_renumbering_and_operand_order_keep_the_key(seed):
    rng = np.random.default_rng(seed)
    block = sample(seed)
    assert renumbered(block, rng).key == block.key


@PROPERTY
@given(seed=SEEDS, identities=st.integers(1, 5))
def test_identities_keep_the_key(seed, identities):
    rng = np.random.default_rng(seed)
    block = other = sample(seed)
    for _ in range(identities):
        other = with_identity(other, rng)
    assert renumbered(other, rng).key == block.key
    assert same_graph(block, other)


@PROPERTY
@given(seed=SEEDS, max_index=st.sampled_from([4, 6, 23]))
def test_changed_blocks_share_a_key_exactly_when_networkx_says_so(seed, max_index):
    rng = np.random.default_rng(seed)
    block = sample(seed, max_index)
    other = renumbered(mutated(block, rng), rng)
    assert (block.key == other.key) == same_graph(block, other)


def test_every_block_of_up_to_three_layers():
    """Exhaustive: within a key all graphs are equal, between keys none are."""
    space = Space(4)
    blocks = [
        Block((*layers, space.next_layers(len(layers) + 1)[-1]))
        for length in range(4)
        for layers in legal_sequences(space, length)
    ]
    assert len(blocks) == 1 + 8 + 8 * 8 + 8 * 8 * 18
    groups = {}
    for block in blocks:
        groups.setdefault(block.key, []).append(block)
    assert len(groups) == 354  # networks, as many as a table of trained blocks has for this space
    for first, *others in groups.values():
        assert all(same_graph(first, other) for other in others)
    signatures = {}
    for first, *_ in groups.values():
        graph = graph_of(first)
        labels = sorted(str(label) for _, label in graph.nodes(data="label"))
        signatures.setdefault((*labels, graph.number_of_edges()), []).append(first)
    for firsts in signatures.values():
        assert not any(same_graph(one, other) for one, other in combinations(firsts, 2))


def legal_sequences(space, length):
    if length == 0:
        return [()]
    return [
        (*start, layer)
        for start in legal_sequences(space, length - 1)
        for layer in space.next_layers(length)[:-1]
    ]


def test_an_identity_of_an_operand_is_a_second_edge_of_it():
    """add(x, identity(x)) is x + x: neither x nor add(x, y)."""
    doubled = Block.parse("(1,1,3,0,0)(2,4,0,1,0)(3,5,0,1,2)(4,7,0,0,0)")
    again = Block.parse("(1,1,3,0,0)(2,4,0,1,0)(3,4,0,2,0)(4,5,0,3,2)(5,7,0,0,0)")
    plain = Block.parse("(1,1,3,0,0)(2,7,0,0,0)")
    assert doubled.key == again.key != plain.key


def test_identity_leaves_are_edges_to_the_output():
    once = Block.parse("(1,1,3,0,0)(2,7,0,0,0)")
    twice = Block.parse("(1,1,3,0,0)(2,4,0,1,0)(3,4,0,1,0)(4,7,0,0,0)")
    input_too = Block.parse("(1,4,0,0,0)(2,1,3,1,0)(3,4,0,1,0)(4,7,0,0,0)")
    assert len({once.key, twice.key, input_too.key}) == 3


@PROPERTY
@given(seed=SEEDS)
def test_blocks_of_v2_share_a_key_exactly_when_networkx_says_so(seed):
    rng = np.random.default_rng(seed)
    block = V2.sample(rng)
    layers = list(block.layers)
    place = int(rng.integers(len(layers)))
    choices = [
        layer for layer in V2.next_layers(place + 1) if layer.op != Op.TERMINAL and layers[1:]
    ]
    if place < len(layers) - 1 and choices:
        layers[place] = choices[rng.integers(len(choices))]
    other = renumbered(Block(tuple(layers)), rng)
    assert (block.key == other.key) == same_graph(block, other)


def test_every_kind_and_kernel_that_computes_is_a_block_of_its_own():
    codes = ["1,1", "1,3", "1,5", "2,3", "3,3", "4,0", "8,3", "8,5"]
    keys = {Block.parse(f"(1,{code},0,0)(2,7,0,0,0)").key for code in codes}
    assert len(keys) == len(codes)


def test_empty_block_is_the_identity():
    assert Block.parse("(1,7,0,0,0)").key == Block.parse("(1,4,0,0,0)(2,7,0,0,0)").key


def test_a_written_concat_is_not_the_concat_of_the_output():
    written = Block.parse("(1,4,0,0,0)(2,1,3,1,0)(3,1,5,1,0)(4,6,0,2,3)(5,7,0,0,0)")
    implied = Block.parse("(1,4,0,0,0)(2,1,3,1,0)(3,1,5,1,0)(4,7,0,0,0)")
    assert written.key != implied.key


@pytest.mark.parametrize("kind", [Op.MAX_POOL, Op.AVG_POOL])
def test_poolings_of_one_pixel_are_wires(kind):
    pooled = Block.parse(f"(1,1,3,0,0)(2,{kind:d},1,1,0)(3,1,5,2,0)(4,{kind:d},1,1,0)(5,7,0,0,0)")
    wired = Block.parse("(1,1,3,0,0)(2,1,5,1,0)(3,4,0,1,0)(4,7,0,0,0)")
    assert pooled.key == wired.key != Block.parse("(1,1,3,0,0)(2,1,5,1,0)(3,7,0,0,0)").key


def star(branches, sums):
    """So many equal convolutions of the input, and adds of the pairs given (0-based)."""
    layers = [Layer(1, Op.IDENTITY, 0, 0, 0)]
    layers += [Layer(2 + branch, Op.CONV, 3, 1, 0) for branch in range(branches)]
    layers += [Layer(100 + n, Op.ADD, 0, 2 + a, 2 + b) for n, (a, b) in enumerate(sums)]
    return rebuilt(layers)


HEXAGON = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 5)]
TRIANGLES = [(0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5)]


def test_colour_refinement_alone_would_confuse_these():
    hexagon, triangles = star(6, HEXAGON), star(6, TRIANGLES)
    assert hexagon.key != triangles.key
    rng = np.random.default_rng(0)
    for block in (hexagon, triangles):
        assert {renumbered(block, rng).key for _ in range(20)} == {block.key}


@PROPERTY
@given(seed=SEEDS, branches=st.integers(4, 7), sums=st.integers(3, 8))
def test_symmetric_blocks_agree_with_networkx(seed, branches, sums):
    rng = np.random.default_rng(seed)
    pairs = list(combinations(range(branches), 2))
    one, other = (
        renumbered(star(branches, [pairs[n] for n in rng.integers(len(pairs), size=sums)]), rng)
        for _ in range(2)
    )
    assert (one.key == other.key) == same_graph(one, other)
    assert renumbered(one, rng).key == one.key


def chains(branches):
    layers = [Layer(1, Op.IDENTITY, 0, 0, 0)]
    layers += [Layer(2 + branch, Op.CONV, 3, 1, 0) for branch in range(branches)]
    layers += [Layer(100 + branch, Op.CONV, 3, 2 + branch, 0) for branch in range(branches)]
    return rebuilt(layers)


@pytest.mark.parametrize(
    "block",
    [
        star(20, []),
        chains(10),
        star(6, list(combinations(range(6), 2))),
        star(10, [(n, (n + 1) % 10) for n in range(10)]),
        star(10, [(n, n + 1) for n in range(0, 10, 2)]),
    ],
    ids=["20 convolutions", "10 chains", "all pairs of 6", "ring of 10", "5 pairs"],
)
def test_symmetry_does_not_explode(block):
    started = time.process_time()
    assert len(block.key) == 32
    assert time.process_time() - started < 0.05  # measured: 3 ms for the worst, the chains


def test_keys_of_the_published_blocks_stay():
    """Journals hold keys: a change here makes every recorded search forget its blocks."""
    assert {name: block.key for name, block in BLOCKS.items()} == {
        "A": "d9256035534ecb7e1e55971ed7ba2b92",
        "B": "d9b4090553314df8805533e12601117c",
        "S": "dcb800a58d8b50b6ea7bba137dea7310",
        "inception": "887770d946fa7275fd1ad8c5bf9596b3",
        "residual": "1b069af9010e979ec06e23dd4251e203",
        "plain": "f9f5cf66fb35f56165726a3b0d158921",
    }


def test_keys_are_the_same_in_another_process():
    block = sample(7)
    command = (
        "import sys; from blockqnn.space.spaces import Block; print(Block.parse(sys.argv[1]).key)"
    )
    for hash_seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", command, str(block)],
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == block.key
