"""Blocks become networks: shapes, the add and output rules, gradients, initialisation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from blockqnn.cost import network_cost
from blockqnn.network import build_network
from blockqnn.network.block_module import BlockModule
from blockqnn.network.cells import Add, Concat, Pcc, Separable
from blockqnn.space import V2, Block, Space
from blockqnn.zoo import BLOCKS

SMALL = {"filters": (4, 6), "repeats": (2, 1), "num_classes": 5}
SEEDS = st.integers(0, 2**32)


def small_block(seed):
    """A random block whose small network is small enough to run."""
    rng = np.random.default_rng(seed)
    while True:
        block = Space(23).sample(rng)
        if network_cost(block, **SMALL, image_size=8).macs < 20_000_000:
            return block


def parameters(net):
    return sum(parameter.numel() for parameter in net.parameters())


def on_meta(block, **arguments):
    with torch.device("meta"):
        return build_network(block, **arguments)


@pytest.mark.parametrize(
    ("name", "filters", "repeats", "num_classes", "expected"),
    [
        ("S", (32, 64, 128), 2, 10, 6_125_866),
        ("S", (32, 64, 128), 2, 100, 6_195_076),
        ("S", (80, 160, 320), (3, 2, 2), 10, 39_332_730),
        ("A", (32, 64, 128), 4, 10, 27_115_626),
    ],
)
def test_parameters_of_the_published_networks(name, filters, repeats, num_classes, expected):
    """6.1 M and about 39.3 M (table 3 prints 39.8 M) for S; A is our own arithmetic."""
    net = on_meta(BLOCKS[name], filters=filters, repeats=repeats, num_classes=num_classes)
    assert parameters(net) == expected


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize(("skeleton", "size"), [("cifar", 9), ("half", 9), ("imagenet", 35)])
def test_logits_and_gradients_are_finite(name, skeleton, size):
    torch.manual_seed(0)
    net = build_network(BLOCKS[name], **SMALL, in_channels=1, skeleton=skeleton)
    logits = net(torch.randn(4, 1, size, size))
    assert logits.shape == (4, 5)
    logits.logsumexp(1).sum().backward()
    gradients = [parameter.grad for parameter in net.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_image_sizes_through_the_skeletons():
    sizes = []
    for skeleton, size in (("cifar", 32), ("half", 32), ("imagenet", 224)):
        net = on_meta(
            BLOCKS["residual"], filters=(2, 4, 8, 16), repeats=1, num_classes=3, skeleton=skeleton
        )
        for name, part in net.named_children():
            if name.startswith("stage"):
                part.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
        net(torch.empty(1, 3, size, size, device="meta"))
    assert sizes == [
        (2, 32, 32), (4, 16, 16), (8, 8, 8), (16, 4, 4),
        (2, 16, 16), (4, 8, 8), (8, 4, 4), (16, 2, 2),
        (2, 56, 56), (4, 28, 28), (8, 14, 14), (16, 7, 7),
    ]  # fmt: skip


def test_block_output_is_the_concat_of_all_leaves():
    block = Block.parse("(1,4,0,0,0)(2,4,0,1,0)(3,2,1,1,0)(4,3,3,1,0)(5,7,0,0,0)")
    images = torch.randn(2, 3, 5, 5)
    module = BlockModule(block, 3, 8)
    assert module.out_channels == 9
    pooled = nn.functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    torch.testing.assert_close(module(images), torch.cat([images, images, pooled], 1))


def test_single_leaf_and_empty_block_are_passed_through():
    images = torch.randn(2, 3, 5, 5)
    for text in ("(1,7,0,0,0)", "(1,4,0,0,0)(2,2,1,1,0)(3,3,1,2,0)(4,7,0,0,0)"):
        module = BlockModule(Block.parse(text), 3, 8)
        assert module(images) is images
        assert not list(module.parameters())


def test_average_pooling_ignores_the_border():
    module = BlockModule(Block.parse("(1,3,3,0,0)(2,7,0,0,0)"), 1, 1)
    torch.testing.assert_close(module(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


def test_convolution_is_relu_convolution_norm():
    module = BlockModule(Block.parse("(1,1,5,0,0)(2,7,0,0,0)"), 3, 8)
    kinds = [type(part).__name__ for part in module.layers["1"]]
    assert kinds == ["ReLU", "Convolution", "BatchNorm2d"]
    convolution = module.layers["1"][1]
    assert (convolution.kernel_size, convolution.padding, convolution.bias) == (
        (5, 5),
        (2, 2),
        None,
    )


SEPARABLES = Block.parse("(1,4,0,0,0)(2,8,3,1,0)(3,8,5,2,0)(4,8,3,1,0)(5,7,0,0,0)")


@pytest.mark.parametrize("kernel", [3, 5])
def test_separable_convolution_is_relu_depthwise_pointwise_norm(kernel):
    """Against one convolution a channel and a product of matrices, in double precision."""
    torch.manual_seed(0)
    layer = BlockModule(Block.parse(f"(1,8,{kernel},0,0)(2,7,0,0,0)"), 3, 8).double().layers["1"]
    depthwise, pointwise = (
        weights for name, weights in layer.named_parameters() if name[0] in "12"
    )
    assert (depthwise.shape, pointwise.shape) == ((3, 1, kernel, kernel), (8, 3, 1, 1))
    images = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    padded = nn.functional.pad(images.clamp(min=0), [kernel // 2] * 4)
    maps = torch.zeros_like(images)
    for row in range(7):
        for column in range(6):
            patch = padded[:, :, row : row + kernel, column : column + kernel]
            maps[:, :, row, column] = (patch * depthwise[:, 0]).sum((2, 3))
    mixed = torch.einsum("fc,nchw->nfhw", pointwise[:, :, 0, 0], maps)
    mean, variance = mixed.mean((0, 2, 3)), mixed.var((0, 2, 3), unbiased=False)
    expected = (mixed - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    torch.testing.assert_close(layer(images), expected)


def test_separable_convolutions_start_he_normal_over_their_own_inputs():
    torch.manual_seed(0)
    _, depthwise, pointwise, _ = Separable(2000, 50, 3)
    assert depthwise.weight.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.05)
    assert pointwise.weight.std().item() == pytest.approx(math.sqrt(2 / 2000), rel=0.05)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_separable_convolutions_may_overwrite_what_nobody_else_reads(seed):
    block = V2.sample(np.random.default_rng(seed))
    torch.manual_seed(seed % 2**31)
    module = BlockModule(block, 4, 4).double()
    images = torch.randn(4, 4, 5, 5, dtype=torch.float64)
    before, outputs = images.clone(), []
    for overwrites in (True, False):
        for part in module.modules():
            if isinstance(part, nn.ReLU) and not overwrites:
                part.inplace = False
        output = module(images)
        weights = list(module.parameters())
        gradients = torch.autograd.grad(output.square().sum(), weights) if weights else ()
        outputs.append((output, *gradients))
    torch.testing.assert_close(*outputs)
    assert torch.equal(images, before)


def test_separable_convolutions_in_bfloat16_agree_with_float32():
    torch.manual_seed(0)
    net = build_network(SEPARABLES, **SMALL)
    images = torch.randn(8, 3, 8, 8)
    exact = net(images)
    exact.logsumexp(1).sum().backward()
    gradients = torch.cat([parameter.grad.flatten() for parameter in net.parameters()])
    net.zero_grad()
    net = net.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = net(images.to(memory_format=torch.channels_last))
    assert logits.dtype == torch.bfloat16
    logits.float().logsumexp(1).sum().backward()
    torch.testing.assert_close(logits.float(), exact, rtol=0.05, atol=0.05)
    found = torch.cat([parameter.grad.flatten() for parameter in net.parameters()])
    assert nn.functional.cosine_similarity(found, gradients, dim=0) > 0.98


@pytest.mark.parametrize(
    ("widths", "out", "projected"),
    [
        ((8, 8), 8, (False, False)),
        ((5, 5), 5, (False, False)),
        ((8, 5), 8, (False, True)),
        ((5, 8), 8, (True, False)),
        ((5, 3), 8, (True, True)),
    ],
)
def test_adds_project_what_is_not_as_wide_as_the_filters(widths, out, projected):
    add = Add(widths, 8)
    maps = [torch.randn(2, width, 4, 4) for width in widths]
    assert add.out_channels == out
    assert tuple(isinstance(part, Pcc) for part in add.projections) == projected
    assert add(*maps).shape == (2, out, 4, 4)


def test_an_operand_added_twice_counts_twice():
    block = Block.parse("(1,4,0,0,0)(2,4,0,1,0)(3,5,0,1,2)(4,7,0,0,0)")
    images = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(BlockModule(block, 3, 8)(images), 2 * images)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_concat_and_overwriting_leave_gradients_as_they_are(seed):
    """Against plain `torch.cat` and ReLUs that overwrite nothing, in double precision."""
    torch.manual_seed(seed % 2**31)
    net = build_network(small_block(seed), **SMALL).double()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)

    def outcome():
        net.zero_grad()
        logits = net(images)
        logits.logsumexp(1).sum().backward()
        return [logits.detach(), *(parameter.grad for parameter in net.parameters())]

    ours = outcome()
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Concat, "forward", lambda self, *pieces: torch.cat(pieces, 1))
        plain = outcome()
    torch.testing.assert_close(ours, plain)


def test_concat_gradients_numerically():
    one = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    other = torch.randn(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: Concat()(a, b, a), (one, other))
    assert torch.autograd.gradgradcheck(lambda a, b: Concat()(a, b, a) ** 2, (one, other))


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_concat_gradients_are_dense_in_the_format_of_the_output(memory_format):
    pieces = [torch.randn(2, width, 4, 4).to(memory_format=memory_format) for width in (3, 5)]
    seen = []
    for piece in pieces:
        piece.requires_grad_()
        piece.register_hook(seen.append)
    joined = Concat()(*pieces)
    for other in (torch.channels_last, torch.contiguous_format):
        joined.backward(torch.randn(2, 8, 4, 4).to(memory_format=other), retain_graph=True)
    assert len(seen) == 4
    assert all(gradient.is_contiguous(memory_format=memory_format) for gradient in seen)


@pytest.mark.parametrize("name", BLOCKS)
def test_bfloat16_autocast_in_channels_last_agrees_with_float32(name):
    torch.manual_seed(0)
    net = build_network(BLOCKS[name], **SMALL)
    images = torch.randn(8, 3, 8, 8)
    exact = net(images)
    exact.logsumexp(1).sum().backward()
    gradients = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    net = net.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = net(images.to(memory_format=torch.channels_last))
    assert logits.dtype == torch.bfloat16
    logits.float().logsumexp(1).sum().backward()
    torch.testing.assert_close(logits.float(), exact, rtol=0.05, atol=0.05)
    flat, expected = (
        torch.cat([gradient.flatten() for gradient in grads])
        for grads in ((parameter.grad for parameter in net.parameters()), gradients)
    )
    assert nn.functional.cosine_similarity(flat, expected, dim=0) > 0.98


def test_the_input_of_a_block_is_left_alone():
    for name, block in BLOCKS.items():
        images = torch.randn(2, 4, 5, 5)
        before = images.clone()
        BlockModule(block, 4, 4)(images)
        assert torch.equal(images, before), name


def test_convolutions_start_he_normal():
    torch.manual_seed(0)
    net = build_network(BLOCKS["S"], filters=(32, 64), repeats=1, num_classes=10)
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)


def test_the_seed_decides_the_weights():
    nets = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        nets.append(build_network(BLOCKS["B"], **SMALL).state_dict())
    first, again, other = nets
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("name", ["drop_path", "dropout"])
@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_shares_to_drop_are_below_one(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}: give 0 to below 1"):
        build_network(BLOCKS["residual"], **SMALL, **{name: value})


@pytest.mark.parametrize("build", [build_network, network_cost])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"skeleton": "vgg"}, "skeleton is 'vgg': give cifar, half or imagenet"),
        ({"filters": ()}, "filters is []: give one positive width a stage"),
        ({"filters": (4, 0)}, "filters is [4, 0]: give one positive width a stage"),
        ({"repeats": 0}, "repeats is 0: give 1 block a stage or more"),
        ({"repeats": (1, 0)}, "repeats is (1, 0): give 1 block a stage or more"),
        ({"repeats": (1, 2, 3)}, "repeats is [1, 2, 3]: give one number, or one for each of 2"),
        ({"num_classes": 0}, "num_classes is 0: give 1 or more"),
        ({"in_channels": 0}, "in_channels is 0: give 1 or more"),
    ],
)
def test_wrong_arguments_name_field_value_and_remedy(build, change, message):
    with pytest.raises(ValueError) as caught:
        build(BLOCKS["residual"], **SMALL | change)
    assert str(caught.value).startswith(message)


def test_the_parts_are_run_as_their_names_say():
    torch.manual_seed(0)
    net = build_network(BLOCKS["inception"], **SMALL).eval()
    images = torch.randn(2, 3, 8, 8)
    names = [name for name, _ in net.named_children()]
    assert names == ["stem", "stage1", "pool1", "stage2", "head"]
    maps = images
    for name in names[:-1]:
        maps = getattr(net, name)(maps)
    features = net.forward_features(images)
    torch.testing.assert_close(features, maps.relu())
    assert features.shape == (2, net.num_features, 4, 4)
    pooled = net.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, features.mean((2, 3)))
    logits = nn.functional.linear(pooled, net.get_classifier().weight, net.get_classifier().bias)
    torch.testing.assert_close(net.forward_head(features), logits)
    torch.testing.assert_close(net(images), logits)


@pytest.mark.parametrize(
    ("pool", "factor", "pooled"),
    [
        ("avg", 1, lambda maps: maps.mean((2, 3))),
        ("max", 1, lambda maps: maps.amax((2, 3))),
        ("catavgmax", 2, lambda maps: torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)),
        ("", 1, lambda maps: maps),
    ],
)
def test_the_classifier_can_be_replaced_and_taken_away(pool, factor, pooled):
    net = build_network(BLOCKS["residual"], **SMALL).double().eval()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    net.reset_classifier(0, pool)
    features = net.forward_features(images)
    torch.testing.assert_close(net(images), pooled(features))
    if pool:
        net.reset_classifier(7)
        assert net(images).shape == (2, 7)
        assert net.get_classifier().in_features == factor * net.num_features
        assert net.num_classes == 7
    else:
        with pytest.raises(ValueError, match=r"global_pool is '': 7 classes need a pooling"):
            net.reset_classifier(7)


def test_checkpointing_recomputes_and_changes_nothing():
    torch.manual_seed(0)
    images = torch.randn(4, 3, 8, 8)
    outcomes = []
    for enable in (False, True):
        torch.manual_seed(1)
        net = build_network(BLOCKS["S"], **SMALL, drop_path=0.5)
        net.set_grad_checkpointing(enable)
        runs = []
        net.stage1[0].register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        net(images).logsumexp(1).sum().backward()
        assert len(runs) == (2 if enable else 1)
        outcomes.append((net.state_dict(), [parameter.grad for parameter in net.parameters()]))
    torch.testing.assert_close(*outcomes, rtol=0, atol=0)


def merging_block(drop_path):
    """The sum of two poolings, the one of them as it is, and another pooling of it."""
    text = "(1,2,3,0,0)(2,3,3,1,0)(3,5,0,1,2)(4,4,0,1,0)(5,3,3,1,0)(6,7,0,0,0)"
    return BlockModule(Block.parse(text), 2, 2, drop_path)


def test_dropped_paths_are_those_from_layers_into_joints_and_keep_the_mean():
    """Worked out by hand for maps of ones: a sum of two paths, and two paths as they are."""
    images = torch.ones(4000, 2, 1, 1)
    module = merging_block(0.25)
    torch.manual_seed(0)
    total, same, pooled = module(images).flatten(1).split(2, 1)
    for values, expected in ((total, 2.0), (same, 1.0), (pooled, 1.0)):
        assert values.mean().item() == pytest.approx(expected, abs=0.05)
        assert torch.equal(values[:, 0], values[:, 1])  # whole images
    scale = 1 / 0.75
    assert total.unique().tolist() == pytest.approx([0.0, scale, 2 * scale])
    assert (pooled == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(module.eval()(images), merging_block(0.0)(images))


def test_separable_convolutions_drop_as_convolutions_do():
    block = Block.parse("(1,8,3,0,0)(2,1,1,1,0)(3,8,5,1,0)(4,6,0,2,3)(5,7,0,0,0)")
    assert BlockModule(block, 4, 4, 0.5).droppable == {"4": [0, 1]}


def test_inputs_of_a_block_and_sums_are_never_dropped():
    block = Block.parse("(1,4,0,0,0)(2,1,3,1,0)(3,5,0,1,2)(4,4,0,3,0)(5,4,0,3,0)(6,7,0,0,0)")
    module = BlockModule(block, 4, 4, 0.9)
    images = torch.randn(500, 4, 2, 2)
    one, other = module(images).split(4, 1)
    assert torch.equal(one, other)
    untouched = (one == images).flatten(1).all(1)
    assert untouched.float().mean().item() == pytest.approx(0.9, abs=0.05)


def test_paths_drop_more_from_block_to_block_and_not_without_a_rate():
    arguments = {"filters": (4, 4), "repeats": (3, 1), "num_classes": 2}
    plain, dropping = (
        build_network(BLOCKS["residual"], **arguments, drop_path=rate) for rate in (0.0, 0.2)
    )
    blocks = [part for part in dropping.modules() if isinstance(part, BlockModule)]
    assert [part.drop_path.drop_prob for part in blocks] == pytest.approx([0.05, 0.1, 0.15, 0.2])
    assert list(plain.state_dict()) == list(dropping.state_dict())
    assert not any("Drop" in type(part).__name__ for part in plain.modules())


def test_dropout_comes_before_the_linear_layer():
    net = build_network(BLOCKS["plain"], **SMALL, dropout=0.5)
    features = net.forward_features(torch.randn(3, 3, 8, 8)).detach()
    pooled = net.forward_head(features, pre_logits=True)
    kept = pooled != 0
    assert 0 < kept.float().mean() < 1
    torch.testing.assert_close(pooled[kept], 2 * features.mean((2, 3))[kept])
    torch.testing.assert_close(
        net.eval().forward_head(features, pre_logits=True), features.mean((2, 3))
    )
