"""Rewards: the paper's, ours, and what a candidate without an accuracy is worth."""

import itertools
import math
import os

import pytest
from tiny_search import asked, cached_load, finish, tiny_settings

from blockqnn.cost import network_cost
from blockqnn.reward import reward
from blockqnn.search import Search
from blockqnn.search.objective import Objective
from blockqnn.search.outcome import Outcome
from blockqnn.search.search import read_search
from blockqnn.zoo import BLOCKS

GOOD = Outcome(kind="trained", accuracy=50.0)


@pytest.fixture(autouse=True, scope="module")
def many_searches():
    """Images are read once, and nothing waits for the disk: power is not lost here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("blockqnn.search.search.load", cached_load)
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def largest_class(settings):
    """Percent of the held-out images that have the most frequent label."""
    labels = cached_load(settings.data, settings.seed).held_out.labels.tolist()
    return 100 * max(map(labels.count, labels)) / len(labels)


def test_a_block_over_budget_is_settled_unseen_at_chance(tmp_path):
    free = tiny_settings()
    with Search.open(tmp_path / "free", free) as search:
        search.ask()
        costs = sorted(
            search._costs.of(candidate.block).parameters for candidate in search.candidates
        )
    limit = (costs[2] + costs[3]) // 2
    settings = tiny_settings(budget={"parameters": limit})
    handed = []
    finish(tmp_path / "tight", settings, lambda c: handed.append(c.number) or GOOD)
    view = read_search(tmp_path / "tight")
    over = [r for r in view.results if r.cost.parameters > limit]
    assert over
    assert not {r.candidate.number for r in over} & set(handed)
    for result in over:
        assert result.outcome.kind == "infeasible"
        assert result.reward == 10.0
    assert f"budget.parameters is {limit:,}" in over[0].outcome.reason


def test_a_budget_that_nothing_fits_ends_the_search_without_a_training(tmp_path):
    with Search.open(tmp_path, tiny_settings(budget={"parameters": 1})) as search:
        assert search.ask() is None
        assert search.finished
        assert search.best(3) == []
        assert {r.reward for r in search.results} == {largest_class(tiny_settings())}


def test_rewards(tmp_path):
    with Search.open(tmp_path, tiny_settings()) as search:
        held = asked(search)
        outcomes = [GOOD, Outcome(kind="diverged"), Outcome(kind="infeasible", reason="too big")]
        for candidate, outcome in itertools.zip_longest(held, outcomes, fillvalue=GOOD):
            search.tell(candidate, outcome)
        for candidate in held[1:3]:
            assert search.result(candidate.number).reward == largest_class(tiny_settings())
        result = search.result(held[0].number)
        cost = network_cost(
            held[0].block, filters=(8, 12), repeats=1, num_classes=10, in_channels=1, image_size=8
        )
        assert result.cost == cost
        expected = reward(50.0, macs=cost.macs, density=held[0].block.density, mu=1.0, rho=8.0)
        assert result.reward == expected


def test_rewards_of_objective_accuracy(tmp_path):
    """What was trained is worth its accuracy, whatever it costs; the rest less than any of it."""
    settings = tiny_settings(reward={"objective": "accuracy"})
    with Search.open(tmp_path, settings) as search:
        held = asked(search)
        outcomes = [Outcome(kind="trained", accuracy=0.0), Outcome(kind="diverged")]
        outcomes += [Outcome(kind="infeasible", reason="too big")]
        for candidate, outcome in itertools.zip_longest(held, outcomes, fillvalue=GOOD):
            search.tell(candidate, outcome)
        rewards = [search.result(candidate.number).reward for candidate in held]
        assert rewards[:3] == [0.0, -1.0, -1.0]
        assert set(rewards[3:]) == {50.0}


def test_a_trade_off_is_held_against_the_plain_block_and_means_the_same_on_hard_data(tmp_path):
    prices = {"macs": 10.0, "parameters": 20.0}
    settings = tiny_settings(reward={"objective": "accuracy", "trade_off": prices})
    chance = largest_class(settings)
    with Search.open(tmp_path, settings) as search:
        held = asked(search)
        accuracies = [chance + 1, chance + 40, chance, 0.0]
        outcomes = [Outcome(kind="trained", accuracy=accuracy) for accuracy in accuracies]
        for candidate, outcome in itertools.zip_longest(held, outcomes, fillvalue=GOOD):
            search.tell(candidate, outcome)
        shape = {"filters": (8, 12), "repeats": 1, "num_classes": 10}
        shape |= {"in_channels": 1, "image_size": 8}
        plain = network_cost(BLOCKS["plain"], **shape)
        for candidate, accuracy in zip(held, accuracies, strict=False):
            cost = network_cost(candidate.block, **shape)
            factor = 0.9 ** math.log2(cost.macs / plain.macs)
            factor *= 0.8 ** math.log2(cost.parameters / plain.parameters)
            expected = chance + (accuracy - chance) * factor if accuracy > chance else accuracy
            assert search.result(candidate.number).reward == pytest.approx(expected)


def test_balanced_accuracy_is_rewarded_where_it_was_measured(tmp_path):
    settings = tiny_settings(reward={"objective": "accuracy", "metric": "balanced_accuracy"})
    outcome = Outcome(kind="trained", accuracy=90.0, balanced_accuracy=55.0)
    with Search.open(tmp_path, settings) as search:
        assert search.task.chance == 10.0  # of ten classes one is right
        candidate = search.ask()
        search.tell(candidate, outcome)
        for other in asked(search):
            search.tell(other, GOOD)
    result = read_search(tmp_path).result(candidate.number)
    assert (result.reward, result.outcome.accuracy) == (55.0, 90.0)


@pytest.mark.parametrize("objective", ["paper", "accuracy"])
def test_the_accuracy_for_a_reward_has_that_reward(objective):
    """What stopping asks for: rewards below chance and above, of networks cheaper and dearer."""
    weights = {"objective": objective}
    if objective == "accuracy":
        weights["trade_off"] = {"macs": 7.0, "parameters": 3.0}
    settings = tiny_settings(reward=weights)
    shape = {"filters": (8, 12), "repeats": 1, "num_classes": 10, "image_size": 8}
    found = Objective(settings.reward, 10.0, network_cost(BLOCKS["plain"], **shape))
    for name in ("plain", "S", "inception"):
        cost = network_cost(BLOCKS[name], **shape)
        for wanted in (0.5, 10.0, 12.0, 35.0):
            accuracy = found.accuracy_for(wanted, BLOCKS[name], cost)
            if 0 <= accuracy <= 100:
                outcome = Outcome(kind="trained", accuracy=accuracy)
                assert found.reward(outcome, BLOCKS[name], cost) == pytest.approx(wanted)
