"""Networks of one cost in a search, and what the device's prices decide."""

import re

import pytest
import torch
from tiny_search import cached_load, finish, journal_of, tiny_settings
from torch.utils.flop_counter import FlopCounterMode

from blockqnn.errors import SearchError
from blockqnn.network import build_network
from blockqnn.search import Search
from blockqnn.search.history import read_search
from blockqnn.training import device_prices
from blockqnn.zoo import BLOCKS

SHAPE = {"repeats": 1, "num_classes": 10, "in_channels": 1}
FILTERS = [16, 32]


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Digits are loaded once, and a device is measured in the fewest rounds."""
    monkeypatch.setattr("blockqnn.search.search.load", cached_load)
    monkeypatch.setattr(device_prices, "SECONDS", 0.0)


def macs(block, filters, **shape):
    """Multiply-accumulates of a network as torch counts them."""
    network = build_network(block, filters=filters, **{**SHAPE, **shape}).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, 8, 8))
    return counter.get_total_flops() / 2


def test_candidates_are_as_wide_as_their_network_may_be(tmp_path):
    network = {"filters": FILTERS, "match": "macs"}
    finish(tmp_path, tiny_settings(network=network, budget={"times_plain": None}))
    history = read_search(tmp_path)
    plain = macs(BLOCKS["plain"], FILTERS)
    trained = 0
    for result in history.results:
        candidate = result.candidate
        assert all(filters % 8 == 0 for filters in candidate.shape.filters)
        if result.outcome.kind == "trained" and result.same_as is None:
            assert macs(candidate.block, candidate.shape.filters) <= 1.03 * plain
            assert result.cost.macs == pytest.approx(macs(candidate.block, candidate.shape.filters))
            trained += macs(candidate.block, candidate.shape.filters) >= 0.97 * plain
        elif "times the macs" in result.outcome.reason:
            assert macs(candidate.block, (8, 8)) > 1.03 * plain
    assert trained >= 5
    # one network, one width
    widths = {}
    for candidate in history.candidates:
        assert widths.setdefault(candidate.key, candidate.shape.filters) == candidate.shape.filters


def test_networks_of_every_shape_cost_the_same(tmp_path):
    network = {"filters": FILTERS, "match": "macs"}
    space = {"max_index": 4, "skeletons": ["cifar", "half"], "repeats": [1, 2]}
    budget = {"times_plain": None}
    history = finish(tmp_path, tiny_settings(network=network, space=space, budget=budget))
    plain = macs(BLOCKS["plain"], FILTERS)
    equal, shapes = 0, set()
    for result in history.trainings:
        candidate = result.candidate
        own = {"skeleton": candidate.shape.skeleton, "repeats": candidate.shape.repeats}
        counted = macs(candidate.block, candidate.shape.filters, **own)
        assert result.cost.macs == pytest.approx(counted)
        assert counted <= 1.03 * plain
        equal += counted >= 0.97 * plain
        shapes.add(candidate.shape.chosen)
        of_design = [c for c in history.candidates if c.key == candidate.key]
        assert {c.shape for c in of_design} == {candidate.shape}
    assert equal >= 0.6 * len(history.trainings)
    assert len(shapes) >= 5
    journal = {record["number"]: record for record in journal_of(tmp_path)[1:] if "code" in record}
    for candidate in history.candidates:
        record = journal[candidate.number]
        assert tuple(record["repeats"]) == candidate.shape.repeats
        assert record["skeleton"] == candidate.shape.skeleton


def test_prices_are_measured_once_and_stay_with_the_search(tmp_path, monkeypatch):
    settings = tiny_settings(network={"filters": FILTERS, "match": "seconds"})
    finish(tmp_path, settings, most=4)
    begin = journal_of(tmp_path)[0]
    assert begin["prices"]["threads"] == 1
    assert begin["prices"]["batch"] == settings.recipe.batch
    monkeypatch.setattr("blockqnn.search.search.measured_prices", None)  # it would raise
    finish(tmp_path, settings)
    history = read_search(tmp_path)
    assert history.finished
    assert history.prices.to_dict() == begin["prices"]
    costs = [r.cost for r in history.results if r.outcome.kind == "trained"]
    with Search.open(tmp_path, settings) as search:
        plain = search._costs.plain
    assert all(cost.seconds_an_image <= 1.03 * plain.seconds_an_image for cost in costs)
    near = [c for c in costs if c.seconds_an_image >= 0.97 * plain.seconds_an_image]
    assert len(near) >= 0.5 * len(costs)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"budget": {"seconds": 1e-9}}, r"needs .* seconds of training, budget.seconds is 1e-09"),
        ({"budget": {"latency": 1e-9}}, r"needs .* ms for a forward pass, budget.latency is 1e-09"),
    ],
)
def test_a_budget_of_what_is_predicted_is_judged_before_training(tmp_path, changes, reason):
    with Search.open(tmp_path, tiny_settings(**changes)) as search:
        assert search.ask() is None  # nothing is left to train
        assert search.finished
        for result in search.results:
            if result.same_as is None:
                assert result.outcome.kind == "infeasible"
                assert re.match(reason, result.outcome.reason)


def test_a_trade_off_with_seconds_is_held_against_the_plain_block(tmp_path):
    reward = {"objective": "accuracy", "trade_off": {"seconds": 10.0}}
    finish(tmp_path, tiny_settings(reward=reward))
    with Search.open(tmp_path, tiny_settings(reward=reward)) as search:
        plain = search._costs.plain.seconds_an_image
        chance = search.task.chance
    for result in read_search(tmp_path).results:
        accuracy = result.outcome.accuracy
        if accuracy is None:
            assert result.reward == -1.0
        elif accuracy > chance:
            ratio = result.cost.seconds_an_image / plain
            kept = (result.reward - chance) / (accuracy - chance)
            assert kept == pytest.approx(ratio**-0.15200309344504995)  # log2(0.9)


def test_a_device_that_cannot_be_measured_is_one_sentence(tmp_path):
    workers = {"kind": "local", "devices": ["cuda:7"]}
    settings = tiny_settings(network={"match": "latency"}, workers=workers)
    with pytest.raises(SearchError, match=r"cost on device cuda:7 could not be measured .*cuda:7"):
        Search.open(tmp_path, settings)
    assert journal_of(tmp_path) == []
