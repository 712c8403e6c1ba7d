"""What a legal block is, how it is written, and which layers may follow."""

import itertools
import pickle
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockqnn.space import KERNELS, V1, V2, Block, Layer, Op, Space

RESIDUAL = "(1,4,0,0,0)(2,1,3,1,0)(3,1,3,2,0)(4,5,0,1,3)(5,7,0,0,0)"
SEEDS = st.integers(0, 2**32)


def test_size_of_the_papers_space():
    assert sum(len(Space(23).next_layers(index)) for index in range(1, 24)) == 4959


def test_first_and_last_layers_of_a_space():
    assert [str(layer) for layer in Space(23).next_layers(1)] == [
        "(1,1,1,0,0)",
        "(1,1,3,0,0)",
        "(1,1,5,0,0)",
        "(1,2,1,0,0)",
        "(1,2,3,0,0)",
        "(1,3,1,0,0)",
        "(1,3,3,0,0)",
        "(1,4,0,0,0)",
        "(1,7,0,0,0)",
    ]
    assert Space(23).next_layers(23) == (Layer(23, 7, 0, 0, 0),)
    assert Space(1).next_layers(1) == (Layer(1, 7, 0, 0, 0),)


@pytest.mark.parametrize("index", [0, 24, -1])
def test_no_layers_outside_the_space(index):
    with pytest.raises(ValueError, match=f"no layer at index {index}: use 1 to 23"):
        Space(23).next_layers(index)


def test_empty_space_is_refused():
    with pytest.raises(ValueError, match="max_index is 0"):
        Space(0)


def test_every_offered_layer_is_legal_and_every_legal_layer_is_offered():
    """All five-number codes at index 4 of a block, each tried in a real block."""
    start = Block.parse(RESIDUAL).layers[:3]
    offered = {layer for space in (V1, V2) for layer in space.next_layers(4)}
    for op in range(10):
        for kernel in range(7):
            for pred1 in range(-1, 6):
                for pred2 in range(-1, 6):
                    layer = Layer(4, op, kernel, pred1, pred2)
                    end = () if op == Op.TERMINAL else (Layer(5, 7, 0, 0, 0),)
                    swapped = layer if pred1 < pred2 else layer._replace(pred1=pred2, pred2=pred1)
                    expected = layer in offered or (op in (5, 6) and swapped in offered)
                    try:
                        Block((*start, layer, *end))
                    except ValueError as error:
                        assert not expected, error
                        assert str(error).startswith("layer 4: ")
                    else:
                        assert expected, layer


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, max_index=st.integers(1, 23))
def test_samples_are_legal_and_read_back(seed, max_index):
    space = Space(max_index)
    block = space.sample(np.random.default_rng(seed))
    space.check(block)
    assert Block.parse(str(block), max_index) == block
    assert all(layer in space.next_layers(layer.index) for layer in block.layers)
    assert pickle.loads(pickle.dumps(block)) == block


def test_samples_depend_on_the_generator_only():
    first, again, other = (Space().sample(np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first == again != other


def test_samples_choose_every_first_layer_equally_often():
    rng = np.random.default_rng(0)
    counts = dict.fromkeys(Space(2).next_layers(1), 0)
    for _ in range(4500):
        counts[Space(2).sample(rng).layers[0]] += 1
    assert all(400 < count < 600 for count in counts.values()), counts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(1,9,0,0,0)(2,7,0,0,0)", "layer 1: unknown kind 9, kinds are 1 to 8"),
        ("(1,8,0,0,0)(2,7,0,0,0)", "layer 1: kernel 0 is not allowed for separable, use 3 or 5"),
        ("(1,8,1,0,0)(2,7,0,0,0)", "layer 1: kernel 1 is not allowed for separable, use 3 or 5"),
        ("(1,4,0,0,0)(2,8,3,1,1)(3,7,0,0,0)", "layer 2: pred2 is 1 but separable does not use it"),
        ("(1,0,0,0,0)(2,7,0,0,0)", "layer 1: unknown kind 0"),
        ("(1,1,2,0,0)(2,7,0,0,0)", "layer 1: kernel 2 is not allowed for conv, use 1, 3 or 5"),
        ("(1,2,5,0,0)(2,7,0,0,0)", "layer 1: kernel 5 is not allowed for max_pool, use 1 or 3"),
        ("(1,4,1,0,0)(2,7,0,0,0)", "layer 1: kernel 1 is not allowed for identity, use 0"),
        ("(1,7,3,0,0)", "layer 1: kernel 3 is not allowed for terminal, use 0"),
        ("(1,4,0,1,0)(2,7,0,0,0)", "layer 1: predecessor 1 is not before the layer"),
        ("(1,4,0,0,0)(2,1,1,2,0)(3,7,0,0,0)", "layer 2: predecessor 2 is not before the layer"),
        ("(1,4,0,0,0)(2,1,1,-1,0)(3,7,0,0,0)", "layer 2: predecessor -1 is not before the layer"),
        ("(1,4,0,0,0)(2,1,1,0,0)(3,7,0,0,0)", "layer 2: only layer 1 reads the block input 0"),
        ("(1,4,0,0,0)(2,5,0,0,1)(3,7,0,0,0)", "layer 2: only layer 1 reads the block input 0"),
        ("(1,4,0,0,0)(2,1,1,1,1)(3,7,0,0,0)", "layer 2: pred2 is 1 but conv does not use it"),
        ("(1,4,0,0,0)(2,7,0,1,0)", "layer 2: pred1 is 1 but terminal does not use it"),
        ("(1,4,0,0,0)(2,7,0,0,1)", "layer 2: pred2 is 1 but terminal does not use it"),
        ("(1,4,0,0,0)(2,5,0,1,1)(3,7,0,0,0)", "layer 2: equal predecessors, add reads 1 twice"),
        ("(1,6,0,0,0)(2,7,0,0,0)", "layer 1: concat needs two different predecessors"),
        ("(1,7,0,0,0)(2,7,0,0,0)", "layer 2: comes after the terminal"),
        ("(1,4,0,0,0)(2,7,0,0,0)(3,1,1,1,0)", "layer 3: comes after the terminal"),
        ("(1,4,0,0,0)", "layer 2: no terminal, close the block with (2,7,0,0,0)"),
        ("", "layer 1: no terminal, close the block with (1,7,0,0,0)"),
        ("(1,4,0,0,0)(3,7,0,0,0)", "layer 2: index 3 is out of sequence, expected 2"),
        ("(0,4,0,0,0)(1,7,0,0,0)", "layer 1: index 0 is out of sequence, expected 1"),
        ("(1,4,0,0,0)(2,7,0,0)", "layer 2: cannot read '(2,7,0,0)'"),
        ("(1,4,0,0,0) block", "layer 2: cannot read 'block'"),
        ("S", "layer 1: cannot read 'S'"),
        (f"(1,4,0,{'9' * 5000},0)", "layer 1: cannot read '(1,4,0,9999"),
    ],
)
def test_illegal_blocks_name_the_layer_and_the_rule(text, message):
    with pytest.raises(ValueError) as caught:
        Block.parse(text)
    assert str(caught.value).startswith(message)


def test_blocks_longer_than_the_space_are_refused():
    convolutions = [Layer(1, Op.CONV, 3, 0, 0)]
    convolutions += [Layer(index, Op.CONV, 3, index - 1, 0) for index in range(2, 23)]
    longest = Block((*convolutions, Layer(23, 7, 0, 0, 0)))
    too_long = Block((*convolutions, Layer(23, 1, 3, 22, 0), Layer(24, 7, 0, 0, 0)))
    Space(23).check(longest)
    assert Block.parse(str(longest)) == longest
    for refuse in (Space(23).check, lambda block: Block.parse(str(block))):
        with pytest.raises(ValueError, match="layer 24: more than 23 layers"):
            refuse(too_long)
    assert Block.parse(str(too_long), max_index=24) == too_long


def test_text_may_hold_space_and_keeps_the_operands_as_written():
    text = "(1,4,0,0,0)(2,1,3,1,0)(3,6,0,2,1)(4,7,0,0,0)"
    assert str(Block.parse(text)) == text
    assert str(Block.parse("\n ( 1, 4,0,0 ,0)\n(2,1,3,1,0) (3,6,0,2,1)\t(4,7,0,0,0)\n")) == text


def test_leaves_are_the_layers_nobody_reads():
    assert Block.parse(RESIDUAL).leaves == (4,)
    assert Block.parse("(1,4,0,0,0)(2,1,1,1,0)(3,4,0,1,0)(4,7,0,0,0)").leaves == (2, 3)
    assert Block.parse("(1,7,0,0,0)").leaves == ()


def test_density_counts_input_output_and_identities():
    assert Block.parse("(1,7,0,0,0)").density == 1 / 2
    assert Block.parse("(1,1,1,0,0)(2,1,3,1,0)(3,7,0,0,0)").density == 3 / 4
    assert Block.parse(RESIDUAL).density == 6 / 6


def test_blocks_compare_by_their_codes():
    block, twin = Block.parse(RESIDUAL), Block.parse(RESIDUAL)
    twin.key  # noqa: B018  # a key worked out before changes nothing
    assert block == twin and hash(block) == hash(twin)
    swapped = Block.parse(RESIDUAL.replace("(4,5,0,1,3)", "(4,5,0,3,1)"))
    assert swapped != block


def test_every_kind_has_its_kernels():
    assert set(KERNELS) == set(Op)


# Spaces by their definition


PAIRS = [(8, 3), (8, 5), (1, 1), (2, 3), (3, 3), (4, 0), (5, 0), (6, 0)]


def test_v2_offers_what_its_description_says():
    at_3 = [(3, op, kernel, source, 0) for op, kernel in PAIRS[:6] for source in (1, 2)]
    at_3 += [(3, 5, 0, 1, 2), (3, 6, 0, 1, 2), (3, 7, 0, 0, 0)]
    assert list(V2.next_layers(3)) == at_3
    assert (V2.max_index, V2.max_width) == (12, 4)
    assert V2.next_layers(12) == (Layer(12, 7, 0, 0, 0),)


def leaf_count(layers):
    """Of layers without the terminal, as (index, op, kernel, pred1, pred2)."""
    read = {source for layer in layers for source in layer[3:]}
    return sum(layer[0] not in read for layer in layers)


def all_blocks(max_index, pairs, max_width):
    """Every block of a space, from every way to fill in the numbers, by trial."""
    blocks = set()
    for length in range(max_index):
        options = [
            [
                Layer(index, op, kernel, pred1, pred2)
                for op, kernel in pairs
                for pred1 in range(index)
                for pred2 in (range(pred1 + 1, index) if op in (5, 6) else [0])
            ]
            for index in range(1, length + 1)
        ]
        for layers in itertools.product(*options):
            if leaf_count(layers) <= max_width:
                try:
                    blocks.add(Block((*layers, Layer(length + 1, 7, 0, 0, 0))))
                except ValueError:
                    pass
    return blocks


def walked(space, layers=()):
    """Every block that choices lead to."""
    choices = space.choices(layers)
    assert choices, f"a dead end after {layers}"
    for layer in choices:
        if layer.op == Op.TERMINAL:
            yield Block((*layers, layer))
        else:
            yield from walked(space, (*layers, layer))


@pytest.mark.parametrize("max_width", [1, 2, 3, 4, 99])
@pytest.mark.parametrize(
    ("max_index", "pairs"),
    [
        (6, ((4, 0), (5, 0))),
        (5, ((8, 3), (8, 5), (6, 0))),
        (6, ((1, 3),)),  # nothing merges leaves
        (5, ((6, 0), (4, 0), (5, 0))),
        (2, ((8, 3),)),
        (1, ((8, 3), (5, 0))),
    ],
)
def test_choices_lead_to_all_blocks_of_a_space_and_to_no_others(max_index, pairs, max_width):
    """Exhaustive, so every legal beginning can be ended: `walked` meets no dead end."""
    space = Space(max_index, pairs, max_width)
    found = list(walked(space))
    assert len(found) == len(set(found))
    assert set(found) == all_blocks(max_index, pairs, max_width)
    for block in found:
        space.check(block)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, max_index=st.integers(1, 14), max_width=st.integers(1, 5), steps=st.data())
def test_every_walk_through_v2_can_be_ended_in_time(seed, max_index, max_width, steps):
    """Towards as many leaves as can be, then by the merges that are needed."""
    space = Space(max_index, V2.operations, max_width)
    rng = np.random.default_rng(seed)
    greedy = steps.draw(st.booleans())
    layers = []
    while not layers or layers[-1].op != Op.TERMINAL:
        choices = space.choices(layers)
        assert set(choices) <= set(space.next_layers(len(layers) + 1))
        if greedy:
            widest = max(leaf_count([*layers, layer]) for layer in choices)
            choices = [layer for layer in choices if leaf_count([*layers, layer]) == widest]
        layers.append(choices[rng.integers(len(choices))])
    space.check(Block(tuple(layers)))
    assert leaf_count(layers[:-1]) <= max_width


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_samples_of_v2_are_of_v2(seed):
    block = V2.sample(np.random.default_rng(seed))
    assert len(block.layers) <= 12 and len(block.leaves) <= 4
    assert {layer[1:3] for layer in block.layers[:-1]} <= set(PAIRS)
    V2.check(block)
    assert Block.parse(str(block)) == block


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, max_index=st.integers(1, 23))
def test_without_a_width_limit_choices_are_the_next_layers(seed, max_index):
    space = Space(max_index)
    layers = space.sample(np.random.default_rng(seed)).layers
    for place in range(len(layers)):
        assert space.choices(layers[:place]) == space.next_layers(place + 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(1,1,3,0,0)(2,7,0,0,0)", "layer 1: conv 3x3 is not in this space, use separable 3x3, "),
        ("(1,4,0,0,0)(2,2,1,1,0)(3,7,0,0,0)", "layer 2: max_pool 1x1 is not in this space"),
        (
            "(1,4,0,0,0)" + "".join(f"({i},8,3,1,0)" for i in range(2, 7)) + "(7,7,0,0,0)",
            "layer 7: 5 leaves, 2, 3, 4, 5 and 6, are more than 4, merge some before the terminal",
        ),
        (
            "(1,4,0,0,0)" + "".join(f"({i},4,0,{i - 1},0)" for i in range(2, 13)) + "(13,7,0,0,0)",
            "layer 13: more than 12 layers",
        ),
    ],
)
def test_blocks_outside_v2_name_the_layer_and_the_rule(text, message):
    with pytest.raises(ValueError) as caught:
        V2.check(Block.parse(text))
    assert str(caught.value).startswith(message)


def test_the_papers_space_has_no_separable_convolution():
    with pytest.raises(ValueError, match="layer 1: separable 5x5 is not in this space, use conv 1"):
        V1.check(Block.parse("(1,8,5,0,0)(2,7,0,0,0)"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_width": 0}, "max_width is 0: use at least 1 leaf, or None"),
        ({"operations": ((1, 2),)}, r"operations has \(1, 2\): give kinds and their kernels"),
        ({"operations": ((7, 0),)}, r"operations has \(7, 0\): give kinds and their kernels"),
        ({"operations": ((9, 0),)}, r"operations has \(9, 0\): give kinds and their kernels"),
        ({"operations": ((4, 0), (4, 0))}, "give each once"),
    ],
)
def test_a_space_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Space(**arguments)


def test_choices_take_microseconds():
    rng = np.random.default_rng(0)
    blocks = [V2.sample(rng) for _ in range(200)]
    started = time.perf_counter()
    for block in blocks:
        for place in range(len(block.layers)):
            V2.choices(block.layers[:place])
    steps = sum(len(block.layers) for block in blocks)
    assert (time.perf_counter() - started) / steps < 1e-4  # measured: 5 microseconds
