"""Rungs: the best share of the candidates is trained further, and what comes of it."""

import random
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_search import asked, cached_load, finish, journal_of, supplied, tiny_settings
from tiny_training import CPU, tiny_data
from tiny_training import tiny_settings as training_settings

from blockqnn.agents.random_walk import RandomWalk
from blockqnn.cost import Cost
from blockqnn.data import MemoryFeed
from blockqnn.errors import SearchError, SettingsError
from blockqnn.network import build_network
from blockqnn.search import Search
from blockqnn.search.candidate import Further, train_candidate
from blockqnn.search.history import read_search
from blockqnn.search.journal import Journal
from blockqnn.search.outcome import Outcome
from blockqnn.search.records import Candidate, Result
from blockqnn.search.rungs import Rungs
from blockqnn.seeds import seed_for
from blockqnn.settings import LatencySettings, RungSettings
from blockqnn.training.trainer import Trainer
from blockqnn.zoo import BLOCKS

THREE = [{"share": 0.5, "epochs": 3}, {"share": 0.5, "epochs": 3}]
BLOCK = BLOCKS["residual"]


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Digits are loaded once."""
    monkeypatch.setattr("blockqnn.search.search.load", cached_load)


def told(candidate):
    """As `supplied`, and two percent more a rung, but for every third number."""
    outcome = supplied(candidate)
    if outcome.kind != "trained":
        return outcome
    gain = -30.0 if candidate.number % 3 == 0 and candidate.rung else 2.0 * candidate.rung
    return replace(outcome, accuracy=min(100.0, max(0.0, outcome.accuracy + gain)))


def result(number, reward, rung=0, of=None, kind="trained"):
    candidate = Candidate(number, 0, 1.0, BLOCK, str(number), None, rung, of)
    accuracy = reward if kind == "trained" else None
    return Result(candidate, Outcome(kind=kind, accuracy=accuracy), reward, Cost(1, 1, 1), None, 0)


class TestByHand:
    def test_the_best_half_goes_on(self):
        rungs = Rungs([RungSettings(share=0.5)], batch=4)
        for number, reward in enumerate([10.0, 40.0, 30.0]):
            rungs.add(result(number, reward), None)
        assert rungs.due(9) == [1]  # half of three is one
        rungs.add(result(3, 20.0, kind="diverged"), None)  # trained, and not to go on
        rungs.add(result(4, 99.0, kind="infeasible"), None)  # not trained
        assert rungs.due(9) == [1, 2]
        assert rungs.due(1) == [1]
        rungs.promoted(result(5, 0.0, rung=1, of=1).candidate)
        assert rungs.due(9) == [2]
        rungs.promoted(result(6, 0.0, rung=1, of=2).candidate)
        assert rungs.due(9) == []  # the next best has to wait until there are two more
        rungs.add(result(7, 50.0), None)
        rungs.add(result(8, 5.0), None)
        assert rungs.due(9) == [7]

    def test_the_highest_rung_comes_first(self):
        rungs = Rungs([RungSettings(share=0.5), RungSettings(share=0.5)], batch=4)
        for number in range(4):
            rungs.add(result(number, 10.0 + number), None)
        for number, of in ((4, 3), (5, 2)):
            further = result(number, 30.0, rung=1, of=of)
            rungs.promoted(further.candidate)
            rungs.add(further, result(of, 10.0 + of))
        for number in range(6, 8):
            rungs.add(result(number, 10.0), None)
        assert rungs.due(9) == [4, 1]

    def test_what_a_reward_is_worth_on_the_first_rung(self):
        rungs = Rungs([RungSettings(share=1.0), RungSettings(share=1.0)], batch=4)
        first = [result(0, 50.0), result(1, 40.0)]
        second = [result(2, 70.0, 1, of=0), result(3, 64.0, 1, of=1)]
        for before, after in zip(first, second, strict=True):
            rungs.add(before, None)
            rungs.add(after, before)
        third = result(4, 80.0, 2, of=2)
        rungs.add(third, second[0])
        # the second rung brings 22 on average, the third 10
        assert [rungs.value(each) for each in (*first, *second)] == [50.0, 40.0, 48.0, 42.0]
        assert rungs.value(third) == 48.0
        # what diverged there says nothing of what others gain
        rungs.add(result(5, -1.0, 1, of=0, kind="diverged"), first[0])
        assert rungs.value(second[0]) == 48.0


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_who_goes_on_and_what_becomes_of_it(tmp_path, mode):
    settings = tiny_settings(rungs=THREE, mode=mode, schedule=[[1.0, 12]])
    finish(tmp_path, settings, told, rng=random.Random(1) if mode == "async" else None)
    history = read_search(tmp_path)
    assert history.finished
    rungs = Counter(c.rung for c in history.candidates)
    assert rungs[0] > rungs[1] > rungs[2] >= 3
    shared = {r.candidate.number for r in history.results if r.same_as is not None}
    for rung in (1, 2):
        below = [
            r
            for r in history.results
            if r.candidate.rung == rung - 1
            and r.candidate.number not in shared
            and r.outcome.kind != "infeasible"
        ]
        assert rungs[rung] <= 0.5 * len(below)
    for candidate in history.candidates:
        if candidate.rung:
            before = history.candidates[candidate.of]
            assert (before.key, before.rung) == (candidate.key, candidate.rung - 1)
            assert history.result(candidate.of).outcome.kind == "trained"
    # no work is done twice: of each network, one training a rung
    own = [r.candidate.work for r in history.results if r.same_as is None]
    assert len(own) == len(set(own))
    if mode == "sync":
        promoted_are_the_best(history)


def promoted_are_the_best(history):
    """In each iteration, those that go on are the best of their rung that had not gone on."""
    batch = history.settings.batch
    gone = set()
    for first in range(0, history.total, batch):
        chosen = [c for c in history.candidates[first : first + batch] if c.rung]
        known = [r for r in history.results[:first] if r.same_as is None]
        for rung in (2, 1):
            numbers = [c.of for c in chosen if c.rung == rung]
            ready = [
                r
                for r in known
                if r.candidate.rung == rung - 1
                and r.outcome.kind == "trained"
                and r.candidate.number not in gone
            ]
            ready.sort(key=lambda r: (-r.reward, r.candidate.number))
            assert numbers == [r.candidate.number for r in ready[: len(numbers)]]
        gone |= {c.of for c in chosen}


def test_agents_are_told_what_a_network_came_to_whenever_it_is_proposed_again(
    tmp_path, monkeypatch
):
    told_to = []

    class Listening(RandomWalk):
        def learn_from(self, finished, rng, corrected=()):
            told_to.append((list(finished), list(corrected)))

    monkeypatch.setattr("blockqnn.search.search.build_agent", lambda space, *_: Listening(space))
    settings = tiny_settings(
        rungs=THREE,
        space={"max_index": 2},  # few blocks, again and again
        schedule=[[1.0, 9]],
        reward={"objective": "accuracy"},
    )

    def outcome(candidate):  # half of the networks lose what they seemed to have
        falls = candidate.rung and candidate.key < "8"
        before = 50.0 + int(candidate.key[-2:], 16) / 8
        return Outcome(kind="trained", accuracy=before - 40.0 if falls else before)

    finish(tmp_path, settings, outcome)
    known, again = {}, 0
    for finished, corrected in told_to:
        known |= {block.key: reward for block, reward in corrected}
        for block, reward in finished:
            if block.key in known:
                assert reward == known[block.key]
                again += 1
    assert again >= 10
    first = {}
    for r in read_search(tmp_path).results:
        first.setdefault(r.candidate.key, r.reward)
    assert any(known[key] < first[key] for key in known), "none was worth less than it seemed"


@pytest.mark.parametrize(
    "change",
    [
        {"rung": 3},  # there are two further ones
        {"rung": 2},  # the second is not done
        {"rung": -1},
        {"of": 10**6},
        {"of": None},
        {"of": 0, "key": "another"},
    ],
)
def test_a_promotion_that_cannot_be_is_refused(tmp_path, change):
    finish(tmp_path / "whole", tiny_settings(rungs=THREE), told)
    records = journal_of(tmp_path / "whole")
    place = next(i for i, record in enumerate(records) if "rung" in record)
    (tmp_path / "changed").mkdir()
    with closing(Journal(tmp_path / "changed" / "journal.jsonl")) as journal:
        journal.append([*records[:place], {**records[place], **change}])
    with pytest.raises(SearchError, match="does not follow from those before it"):
        Search.open(tmp_path / "changed", tiny_settings(rungs=THREE))


def test_best_ranks_by_the_highest_rung(tmp_path):
    finish(tmp_path, tiny_settings(rungs=THREE, schedule=[[1.0, 12]]), told)
    history = read_search(tmp_path)
    best = history.best(99)
    order = [(-r.candidate.rung, -r.reward) for r in best]
    assert order == sorted(order)
    assert best[0].candidate.rung == 2
    highest = {}
    for r in history.results:
        if r.outcome.kind == "trained":
            key, rung = r.candidate.key, r.candidate.rung
            highest[key] = max(rung, highest.get(key, 0))
    assert {r.candidate.key: r.candidate.rung for r in best} == highest


def test_a_rung_is_no_setting_to_change(tmp_path):
    Search.open(tmp_path, tiny_settings(rungs=THREE)).close()
    with pytest.raises(SearchError, match=r"^rungs is .* but the search in .* was begun with"):
        Search.open(tmp_path, tiny_settings())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": {"images": 5}}, r"recipe.images is 5: there are 420 training images in 10"),
        (
            {"recipe": {"images": 100}, "rungs": [{"images": 999}]},
            r"rungs\[0\].images is 999: there are 420 training images",
        ),
    ],
)
def test_numbers_of_images_that_are_not_to_be_had(tmp_path, changes, message):
    with pytest.raises(SettingsError, match=message):
        Search.open(tmp_path, tiny_settings(**changes))


@pytest.fixture(scope="module")
def settings():
    plain = training_settings(epochs=3, images=120, learning_rate=0.02)
    return replace(plain, rungs=(RungSettings(epochs=2, images=130), RungSettings(epochs=1)))


@pytest.fixture(scope="module")
def digits():
    return tiny_data()


class TestTraining:
    """Real trainings. What a second rung has to come to is computed by hand from the first."""

    def test_it_goes_on_from_the_weights_with_more_images(self, settings, digits, tmp_path):
        first = train_candidate(BLOCK, settings, digits, tmp_path / "0", CPU)
        second = train_candidate(
            BLOCK, settings, digits, tmp_path / "1", CPU, further=Further(1, tmp_path / "0")
        )
        assert [len(o.curve) for o in (first, second)] == [3, 2]
        content = (tmp_path / "0" / "weights").read_bytes()[32:]
        (tmp_path / "plain").write_bytes(content)
        state = torch.load(tmp_path / "plain", weights_only=True)
        shape = settings.network
        network = build_network(
            BLOCK, filters=shape.filters, repeats=shape.repeats, num_classes=10, in_channels=1
        )
        network.load_state_dict(state["network"])
        recipe = replace(settings.recipe, epochs=2, images=130)
        data = digits.cut(130, seed_for(settings.seed, "rungs"))
        assert len(data.train) == 130
        seed = seed_for(seed_for(settings.seed, "training", BLOCK.key), "restart", 0)
        assert state["restart"] == first.restarts == 0
        seed = seed_for(seed, "rung", 1)
        feed = MemoryFeed(data, recipe, seed, CPU)
        curve = Trainer(network=network, recipe=recipe, feed=feed, seed=seed, device=CPU).run()
        assert [e["loss"] for e in curve] == [e["loss"] for e in second.curve]
        assert second.accuracy == curve[-1]["accuracy"]

    def test_a_latency_is_measured_on_the_first_rung_alone(self, settings, digits, tmp_path):
        settings = replace(settings, latency=LatencySettings(measure=True, passes=3))
        first = train_candidate(BLOCK, settings, digits, tmp_path / "0", CPU)
        job = (BLOCK, settings, digits)
        second = train_candidate(*job, tmp_path / "1", CPU, further=Further(1, tmp_path / "0"))
        assert first.latency == second.latency > 0

    def test_weights_that_are_gone_are_made_again(self, settings, digits, tmp_path):
        place = tmp_path / "0"
        train_candidate(BLOCK, settings, digits, place, CPU)
        job = (BLOCK, settings, digits)
        kept = train_candidate(*job, tmp_path / "1", CPU, further=Further(1, place))
        third = train_candidate(*job, tmp_path / "2", CPU, further=Further(2, tmp_path / "1"))
        gone = train_candidate(*job, tmp_path / "3", CPU, further=Further(1, tmp_path / "nowhere"))
        assert losses(gone) == losses(kept)
        both = train_candidate(*job, tmp_path / "4", CPU, further=Further(2, Path("/nowhere")))
        assert losses(both) == losses(third)

    def test_a_smaller_set_is_part_of_a_larger_one_and_has_all_classes(self, digits):
        seen = [set(), set()]
        for images, found in zip((30, 100), seen, strict=True):
            data = digits.cut(images, seed=3)
            assert len(data.train) == images
            assert len(data.held_out) == len(digits.held_out)
            counts = data.train.labels.bincount(minlength=10)
            share = digits.train.labels.bincount() / len(digits.train)
            assert (counts - images * share).abs().max() <= 1.01
            found |= {image.numpy().tobytes() for image in data.train.images}
        assert seen[0] < seen[1]
        assert digits.cut(None, 3) is digits


def losses(outcome):
    return [entry["loss"] for entry in outcome.curve]


def test_weights_lie_on_disk_while_they_may_be_needed_and_no_longer(tmp_path):
    settings = tiny_settings(rungs=THREE, schedule=[[1.0, 4]])
    with Search.open(tmp_path, settings) as search:
        while not search.finished:
            for candidate in asked(search):
                place = tmp_path / "candidates" / f"{candidate.number:06d}"
                place.mkdir(parents=True)
                (place / "weights").write_bytes(b"w")
                if candidate.of is not None:  # what it goes on from is still there
                    assert (place.parent / f"{candidate.of:06d}" / "weights").exists()
                search.tell(candidate, told(candidate))
                assert place.exists() == (
                    not search.finished and told(candidate).kind == "trained" and candidate.rung < 2
                )
    assert not list((tmp_path / "candidates").glob("*"))
    assert len(journal_of(tmp_path)) == 1 + 2 * search.total
