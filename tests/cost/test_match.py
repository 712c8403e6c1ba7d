"""Networks of one cost: which filters a block gets so that it costs what another does."""

import numpy as np
import pytest

from blockqnn.cost import network_cost
from blockqnn.cost.match import matched_filters
from blockqnn.network import build_network
from blockqnn.settings import NetworkSettings
from blockqnn.space import V2
from blockqnn.zoo import BLOCKS

IMAGES = {"num_classes": 10, "in_channels": 3, "image_size": 32}
PLAIN = BLOCKS["plain"]


def test_by_hand():
    """A cost that is the sum of the filters: (16, 32) has 48, and so has nothing nearer to 1:2."""
    assert matched_filters(sum, (1, 2), 48.0) == (16, 32)
    assert matched_filters(sum, (32, 64), 48.0) == (16, 32)
    assert matched_filters(sum, (8, 8, 8), 72.0) == (24, 24, 24)
    assert matched_filters(sum, (16, 32), 1.0) == (8, 8)  # the nearest that there is
    assert matched_filters(lambda filters: filters[0] ** 2, (64,), 10000.0) == (104,)
    with pytest.raises(ValueError, match=r"target is 0.0: give a cost above 0"):
        matched_filters(sum, (8,), 0.0)


def test_a_block_matches_itself():
    for filters in ((16, 32, 64), (24, 48, 96), (64, 128, 256, 512)):
        network = NetworkSettings(filters=filters, repeats=1, match="macs")
        assert network.matched(PLAIN, PLAIN, **IMAGES).filters == filters


@pytest.mark.parametrize("match", ["macs", "parameters"])
def test_random_networks_cost_the_same(match):
    network = NetworkSettings(filters=(32, 64, 128), repeats=1, match=match)
    rng = np.random.default_rng(0)

    def cost(block, filters):
        shape = {"filters": filters, "repeats": 1, "num_classes": 10}
        built = build_network(block, **shape)
        return {
            "macs": network_cost(block, **shape).macs,
            "parameters": sum(weight.numel() for weight in built.parameters()),
        }[match]

    target, ratios = cost(PLAIN, (32, 64, 128)), []
    for block in (*BLOCKS.values(), *(V2.sample(rng) for _ in range(30))):
        found = network.matched(block, PLAIN, **IMAGES)
        assert found.match == "none"
        assert all(filters % 8 == 0 for filters in found.filters)
        ratios.append(cost(block, found.filters) / target)
    assert ratios[: len(BLOCKS)] == pytest.approx([1.0] * len(BLOCKS), rel=0.03)
    # concats of a block's input widen some networks whatever the filters are
    assert sum(abs(ratio - 1) <= 0.03 for ratio in ratios) >= 0.6 * len(ratios)


def test_without_matching_nothing_changes():
    network = NetworkSettings(filters=(5, 7))
    assert network.matched(BLOCKS["S"], PLAIN, **IMAGES) is network
    assert "match" not in network.described()


def test_deeper_networks_are_matched_with_one_block_a_stage():
    one = NetworkSettings(filters=(32, 64, 128), repeats=1, match="macs")
    target = one.cost(PLAIN, **IMAGES).macs
    for shape in ({"repeats": 3}, {"repeats": (1, 2, 3), "connections": "shortcut"}):
        network = NetworkSettings(filters=(32, 64, 128), match="macs", **shape)
        found = network.matched(PLAIN, PLAIN, **IMAGES)
        assert found.repeats == shape["repeats"]
        assert found.cost(PLAIN, **IMAGES).macs == pytest.approx(target, rel=0.03)
        assert found.filters < one.filters
