"""Final trainings of networks that cost the same: how wide each is, and that it stays so."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from blockqnn.data.images import ImageFacts
from blockqnn.errors import SettingsError
from blockqnn.network import build_network
from blockqnn.network.timm_networks import build_comparator
from blockqnn.params import plan_from_dict
from blockqnn.space import AS_SET, Block, Shape
from blockqnn.training.final.matched import matched_comparator, matched_network
from blockqnn.training.network_width import fitting_widths
from blockqnn.zoo import BLOCKS

IMAGES = ImageFacts("x", tuple("abcde"), 3, 32, "f", 10, 10, (0, 0, 0), (1, 1, 1))
SHAPE = {"num_classes": 5, "in_channels": 3}


def plan(match, filters=(16, 32, 64)):
    return plan_from_dict(
        {
            "data": {"name": "digits"},
            "network": {"filters": list(filters), "repeats": 1, "match": match},
            "recipe": {"batch": 8},
            "compare": ["resnet10t"],
            "workers": {"threads": 1},
        }
    )


def macs(network):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, 3, 32, 32))
    return counter.get_total_flops() / 2


def parameters(network):
    return sum(weight.numel() for weight in network.parameters())


def test_widths_by_hand():
    """The cost is that of a network whose stages have 16, 4 and 1 pixels."""

    def cost(widths):
        return 16 * widths[0] + 4 * widths[1] + widths[2]

    assert fitting_widths(lambda w: cost(w) / cost((24, 48, 96)), (32, 64, 128)) == (24, 48, 96)
    for target in (1000, 1500, 2000, 5000):
        found = fitting_widths(lambda w, t=target: cost(w) / t, (32, 64, 128))
        assert cost(found) / target == pytest.approx(1, rel=0.03)
        assert all(width % 8 == 0 for width in found)
        assert found[0] < found[1] < found[2]
    # as narrow as can be, out of proportion only where that is needed
    assert fitting_widths(lambda w: cost(w) / 10, (32, 64, 128)) == (8, 8, 8)
    assert fitting_widths(lambda w: cost(w) / 192, (32, 64, 128)) == (8, 8, 32)


@pytest.mark.parametrize(("match", "count"), [("macs", macs), ("parameters", parameters)])
def test_timm_models_are_as_wide_as_they_may_be(tmp_path, match, count):
    filters = (32, 64, 128)
    target = count(build_network(BLOCKS["plain"], filters=filters, repeats=1, **SHAPE))
    found, matched = matched_comparator(tmp_path, plan(match, filters), "resnet10t", IMAGES)
    assert found.startswith("resnet10t:")
    network = build_comparator(found, image_size=32, **SHAPE)
    assert count(network) / target == pytest.approx(1, rel=0.03)
    assert matched["by"] == match
    assert matched["ratio"] == pytest.approx(count(network) / target, rel=1e-3)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


def test_what_was_measured_stays_with_the_run(tmp_path, monkeypatch):
    seconds, images = plan("seconds"), replace(IMAGES, image_size=16)
    block = BLOCKS["inception"]
    first = matched_network(tmp_path, seconds, block, AS_SET, images)
    model = matched_comparator(tmp_path, seconds, "resnet10t", images)
    monkeypatch.setattr("blockqnn.training.final.matched.matched_widths", None)
    assert matched_network(tmp_path, seconds, block, AS_SET, images) == first
    assert matched_comparator(tmp_path, seconds, "resnet10t", images) == model
    network, matched = first
    assert network.match == "none"
    assert (matched["by"], model[1]["by"]) == ("seconds", "seconds")
    workers = replace(seconds.workers, threads=2, parallel=2)  # may change, as elsewhere
    others = replace(seconds, workers=workers)
    assert matched_network(tmp_path, others, block, AS_SET, images) == first
    pinned = "resnet10t:8-16-16-16"
    assert matched_comparator(tmp_path, seconds, pinned, images) == (pinned, None)
    assert matched_comparator(tmp_path, plan("none"), "resnet10t", images) == ("resnet10t", None)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet18", "'resnet18', the widths of whose stages cannot be chosen: choose a ResNet"),
        ("resnt18", "'resnt18', which timm does not know: did you mean resnet18"),
    ],
)
def test_a_model_that_cannot_be_matched_is_one_sentence(tmp_path, name, sentence):
    with pytest.raises(SettingsError, match=sentence):
        matched_comparator(tmp_path, plan("macs"), name, IMAGES)


@pytest.mark.parametrize("widths", ["16-32-64", "16-32-64-x", "0-1-1-1", "-1-2-3-4"])
def test_widths_that_are_none(widths):
    with pytest.raises(SettingsError, match=r"give 4 widths, as in resnet10t:64-128-256-512"):
        build_comparator(f"resnet10t:{widths}", image_size=32, **SHAPE)


def test_the_blocks_of_a_stage_are_chosen_with_the_filters(tmp_path):
    """One 1x1 convolution is cheap: more blocks a stage keep the network as narrow as it was."""
    of_macs = plan("macs")
    network = replace(of_macs.network, match_repeats=(1, 2, 3))
    cheap, dear = Block.parse("(1,1,1,0,0)(2,7,0,0,0)"), BLOCKS["S"]
    target = macs(build_network(BLOCKS["plain"], filters=(16, 32, 64), repeats=1, **SHAPE))
    for block, repeats in ((cheap, 3), (dear, 1), (BLOCKS["plain"], 1)):
        found, matched = matched_network(
            tmp_path, replace(of_macs, network=network), block, AS_SET, IMAGES
        )
        assert found.repeats == repeats
        built = build_network(block, filters=found.filters, repeats=found.repeats, **SHAPE)
        assert matched["ratio"] == pytest.approx(macs(built) / target, rel=1e-3)
        assert found.match_repeats == ()
    own = Shape(repeats=(2,))  # what was designed stays
    found, _ = matched_network(tmp_path, replace(of_macs, network=network), cheap, own, IMAGES)
    assert found.repeats == 2
