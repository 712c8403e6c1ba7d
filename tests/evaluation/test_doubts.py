"""Doubts about a search: near chance, far below the most accurate, classes of unequal size."""

import os
from dataclasses import replace

import pytest
from tiny_search import asked, cached_load, tiny_settings

from blockqnn.search import Search
from blockqnn.search.outcome import Outcome
from blockqnn.search.records import Task
from evaluation.stages.doubts import doubts_of, unbalanced

TASK = Task(
    data="own", num_classes=2, in_channels=3, image_size=32, train_images=200,
    held_out_images=100, fingerprint="f", constant_guess=50.0,
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("blockqnn.search.search.load", cached_load)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def searched(directory, accuracies, **changes):
    """A search whose first trainings come to these accuracies, and the others to none."""
    settings = tiny_settings(schedule=[[1.0, 1]], **changes)
    search = Search.open(directory, settings)
    left = list(accuracies)
    for candidate in asked(search):
        good = Outcome(kind="trained", accuracy=left.pop(0)) if left else None
        search.tell(candidate, good or Outcome(kind="diverged", reason="no better than chance"))
    search.close()
    return search


def test_a_good_search_leaves_no_doubts(tmp_path):
    assert doubts_of(searched(tmp_path, [80.0, 60.0])) == []


def test_a_search_without_a_trained_block_leaves_none(tmp_path):
    assert doubts_of(searched(tmp_path, [])) == []


def test_a_winner_near_chance(tmp_path):
    search = searched(tmp_path, [12.0], reward={"objective": "accuracy"})
    (doubt,) = doubts_of(search)
    assert "12.00 %, is no better than chance, 10." in doubt
    assert "180 held-out images" in doubt


def test_a_winner_far_below_the_most_accurate(tmp_path):
    """The paper's prices, raised until a small network wins whatever it learned."""
    settings = tiny_settings(schedule=[[1.0, 1]], reward={"mu": 1000.0, "rho": 0.0})
    with Search.open(tmp_path, settings) as search:
        images = {"num_classes": 10, "in_channels": 1, "image_size": 8}
        held = asked(search)
        held.sort(key=lambda each: settings.network.cost(each.block, **images).macs)
        for candidate in held:
            accuracy = 90.0 if candidate is held[-1] else 40.0
            search.tell(candidate, Outcome(kind="trained", accuracy=accuracy))
    best = search.best(1)[0].outcome.accuracy
    assert best == 40.0
    (doubt,) = doubts_of(search)
    assert "has 90.00 % of the held-out images right" in doubt
    assert f"the best block by reward {best:.2f} %" in doubt
    assert "reward.objective=accuracy" in doubt


@pytest.mark.parametrize(
    ("classes", "largest", "smallest", "metric", "warned"),
    [
        (2, 98.6, 1.4, "accuracy", True),
        (2, 60.0, 40.0, "accuracy", False),
        (2, 98.6, 1.4, "balanced_accuracy", False),
        (3, 49.8, 0.5, "accuracy", True),
        (10, 10.3, 9.7, "accuracy", False),
        (10, 35.0, 5.0, "accuracy", True),
        (10, 98.0, None, "accuracy", True),  # as journals from before have it
    ],
)
def test_unbalanced_classes(classes, largest, smallest, metric, warned):
    shares = {"constant_guess": largest, "smallest_class": smallest}
    sentence = unbalanced(replace(TASK, num_classes=classes, **shares), metric)
    assert bool(sentence) == warned
    if warned:
        assert f"{largest:.1f} %" in sentence
        assert "reward.metric=balanced_accuracy" in sentence
