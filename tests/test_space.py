"""What a legal block is, how it is written, and which layers may follow."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockqnn.space import KERNELS, Block, Layer, Op, Space

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
    offered = set(Space(9).next_layers(4))
    for op in range(9):
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
        ("(1,8,0,0,0)(2,7,0,0,0)", "layer 1: unknown kind 8"),
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
