"""Search: what is handed out, in which order it is recorded, and what comes of it."""

import itertools
import math
import os
import random

import pytest
from tiny_search import asked, cached_load, finish, journal_of, supplied, timeless, tiny_settings

from blockqnn.errors import SearchError
from blockqnn.search import Search
from blockqnn.search.candidate_files import candidate_directory, keep_outcome
from blockqnn.search.journal import Journal
from blockqnn.search.outcome import Outcome
from blockqnn.search.search import Candidate, read_search
from blockqnn.settings.search import PAPER_SCHEDULE
from blockqnn.space import Block

GOOD = Outcome(kind="trained", accuracy=50.0)


@pytest.fixture(autouse=True, scope="module")
def hundreds_of_searches():
    """Images are read once, and nothing waits for the disk: power is not lost here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("blockqnn.search.search.load", cached_load)
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The directory of a whole search."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    finish(directory, tiny_settings())
    return directory


# What is handed out


def test_sync_hands_out_one_iteration_and_waits_for_all_of_it(tmp_path):
    with Search.open(tmp_path, tiny_settings()) as search:
        assert (search.iteration, search.iterations, search.epsilon) == (0, 5, 1.0)
        held = asked(search)
        assert len(search.candidates) == 6
        assert {candidate.iteration for candidate in search.candidates} == {0}
        for candidate in held[1:]:
            search.tell(candidate, GOOD)
            assert search.ask() is None
        search.tell(held[0], GOOD)
        assert search.iteration == 1
        following = search.ask()
        assert following.iteration == 1
        assert following.number >= 6


def test_every_iteration_has_the_schedule_s_epsilon(uninterrupted):
    proposals = [r for r in journal_of(uninterrupted) if r["type"] == "proposal"]
    assert [p["number"] for p in proposals] == list(range(30))
    assert [p["iteration"] for p in proposals] == [n // 6 for n in range(30)]
    assert [p["epsilon"] for p in proposals] == [1.0] * 12 + [0.5] * 12 + [0.0] * 6


def test_a_block_is_handed_out_once_and_repeats_share_its_outcome(uninterrupted, tmp_path):
    handed = []
    finish(tmp_path, tiny_settings(), lambda c: handed.append(c) or supplied(c))
    keys = [candidate.key for candidate in handed]
    assert len(keys) == len(set(keys))
    view = read_search(tmp_path)
    assert view.finished
    repeats = [result for result in view.results if result.same_as is not None]
    assert repeats, "the space is so small that some block comes twice"
    assert {r.candidate.number for r in view.results} - {c.number for c in handed} == {
        r.candidate.number for r in repeats
    }
    for result in repeats:
        first = view.result(result.same_as)
        assert first.same_as is None
        assert first.candidate.number < result.candidate.number
        assert first.candidate.key == result.candidate.key
        assert result.outcome == first.outcome
    records = {r["number"]: r for r in journal_of(tmp_path) if r["type"] == "outcome"}
    assert all("outcome" not in records[r.candidate.number] for r in repeats)


def in_flight_repeat(directory):
    """A search whose first iteration proposes one block twice, and that pair's numbers."""
    for seed in range(100):
        settings = tiny_settings(seed=seed)
        with Search.open(directory / str(seed), settings) as search:
            search.ask()
            keys = [candidate.key for candidate in search.candidates]
        for first, second in itertools.combinations(range(6), 2):
            if keys[first] == keys[second]:
                return directory / str(seed), settings, first, second
    raise AssertionError("no seed proposes a block twice")


def test_a_block_in_flight_is_joined(tmp_path):
    directory, settings, first, second = in_flight_repeat(tmp_path)
    with Search.open(directory, settings) as search:
        held = {candidate.number: candidate for candidate in asked(search)}
        assert first in held
        assert second not in held
        for candidate in held.values():
            search.tell(candidate, GOOD)
        assert search.result(second).same_as == first
        assert search.iteration == 1


def test_isomorphic_blocks_share_a_training_but_keep_their_own_density(tmp_path):
    settings = tiny_settings(
        space={"max_index": 5}, agent={"kind": "random"}, batch=20, schedule=[[1.0, 40]]
    )
    finish(tmp_path, settings)
    view = read_search(tmp_path)
    pairs = [
        (result, view.result(result.same_as))
        for result in view.results
        if result.same_as is not None and result.outcome.kind == "trained"
    ]
    other_code = [(a, b) for a, b in pairs if a.candidate.block != b.candidate.block]
    assert other_code
    for repeat, first in other_code:
        same_density = repeat.candidate.block.density == first.candidate.block.density
        assert (repeat.reward == first.reward) == same_density


def test_a_journal_of_version_1_goes_on_and_trains_no_network_of_it_again(tmp_path):
    """Its keys told networks apart by poolings of kernel 1."""
    settings = tiny_settings(
        space={"max_index": 2}, agent={"kind": "random"}, batch=2, schedule=[[1.0, 30]]
    )
    Search.open(tmp_path / "now", settings).close()
    (begin,) = journal_of(tmp_path / "now")
    codes = {"a" * 32: "(1,2,1,0,0)(2,7,0,0,0)", "b" * 32: "(1,7,0,0,0)"}  # one network, two keys
    records = [{**begin, "version": 1}]
    for number, (key, code) in enumerate(codes.items()):
        turn = {"type": "proposal", "number": number, "iteration": 0, "time": 1.0}
        records.append({**turn, "epsilon": 1.0, "code": code, "key": key})
    cost = {"parameters": 10, "macs": 10, "activation_bytes": 10}
    for number, accuracy in enumerate((40.0, 60.0)):
        outcome = Outcome(kind="trained", accuracy=accuracy).to_dict()
        turn = {"type": "outcome", "number": number, "reward": accuracy, "time": 1.0}
        records.append({**turn, "outcome": outcome, "cost": cost})
    (tmp_path / "then").mkdir()
    journal = Journal(tmp_path / "then" / "journal.jsonl")
    journal.append(records)
    journal.close()

    handed = []
    finish(tmp_path / "then", settings, lambda c: handed.append(c) or supplied(c))
    view = read_search(tmp_path / "then")
    assert view.finished
    assert [result.outcome.accuracy for result in view.results[:2]] == [40.0, 60.0]
    assert len(handed) == 5  # the space has nine codes of six networks
    assert len({candidate.key for candidate in handed}) == 5
    empty = [r for r in view.results[2:] if str(r.candidate.block) in codes.values()]
    assert empty
    assert {result.same_as for result in empty} == {0}


# The order of the journal


def test_the_journal_does_not_depend_on_the_order_of_tells(uninterrupted, tmp_path):
    expected = timeless(uninterrupted)
    for seed in range(8):
        finish(tmp_path / str(seed), tiny_settings(), rng=random.Random(seed))
        assert timeless(tmp_path / str(seed)) == expected


def test_every_permutation_of_one_iteration_gives_the_same_journal(tmp_path):
    settings = tiny_settings(batch=4, schedule=[[1.0, 1]])
    journals = []
    for turn, order in enumerate(itertools.permutations(range(4))):
        with Search.open(tmp_path / str(turn), settings) as search:
            held = asked(search)
            for place in [place for place in order if place < len(held)]:
                search.tell(held[place], supplied(held[place]))
            assert search.finished
        journals.append(timeless(tmp_path / str(turn)))
    assert all(journal == journals[0] for journal in journals)


def test_an_outcome_that_came_early_survives_on_disk_and_is_not_asked_for_again(tmp_path):
    settings = tiny_settings()
    with Search.open(tmp_path, settings) as search:
        held = asked(search)
        for candidate in held[1:]:
            search.tell(candidate, supplied(candidate))
        assert len(search.results) < 6
    with Search.open(tmp_path, settings) as search:
        assert asked(search) == held[:1]
        with pytest.raises(ValueError, match="told before"):
            search.tell(held[1], GOOD)
        search.tell(held[0], supplied(held[0]))
        assert search.iteration == 1
        assert not any(candidate_directory(tmp_path, c.number).exists() for c in held)


def test_a_kept_outcome_of_other_work_or_a_damaged_one_is_not_used(tmp_path):
    settings = tiny_settings()
    with Search.open(tmp_path, settings) as search:
        held = asked(search)
    keep_outcome(candidate_directory(tmp_path, held[0].number), "of another search", GOOD)
    damaged = candidate_directory(tmp_path, held[1].number)
    damaged.mkdir(parents=True)
    for content in (b"", b"{", b"[]", b'{"identity": 1}', b"\xff"):
        (damaged / "outcome.json").write_bytes(content)
        with Search.open(tmp_path, settings) as search:
            assert asked(search) == held


# Async


def test_async_hands_out_a_new_block_for_every_outcome(tmp_path):
    settings = tiny_settings(mode="async", space={"max_index": 8})
    with Search.open(tmp_path, settings) as search:
        first, second = search.ask(), search.ask()
        search.tell(second, GOOD)
        assert [r.candidate.number for r in search.results if r.same_as is None] == [second.number]
        third = search.ask()
        assert third.number > second.number
        search.tell(first, GOOD)
        search.tell(third, GOOD)
        assert third.number in [r.candidate.number for r in search.results]


def test_async_counts_arrivals_as_iterations_and_ends(tmp_path):
    settings = tiny_settings(mode="async")
    search = finish(tmp_path, settings, rng=random.Random(3))
    assert len(search.results) == len(search.candidates) == 30
    view = read_search(tmp_path)
    arrived = 0
    for record in journal_of(tmp_path):
        if record["type"] == "proposal":
            assert record["iteration"] == arrived // 6
            assert record["epsilon"] == view.schedule.at(arrived // 6)
        arrived += record["type"] == "outcome"


def test_async_goes_on_after_a_kill_at_any_record(tmp_path):
    settings = tiny_settings(mode="async")
    finish(tmp_path / "whole", settings, rng=random.Random(3))
    lines = (tmp_path / "whole" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for count in range(0, len(lines), 3):
        directory = tmp_path / str(count)
        directory.mkdir()
        (directory / "journal.jsonl").write_bytes(b"".join(lines[:count]))
        handed = []
        finish(directory, settings, lambda c, handed=handed: handed.append(c) or supplied(c))
        view = read_search(directory)
        assert sorted(r.candidate.number for r in view.results) == list(range(30))
        trained = [r.candidate.key for r in view.results if r.same_as is None]
        assert len(trained) == len(set(trained))
        assert (directory / "journal.jsonl").read_bytes().startswith(b"".join(lines[:count]))


def test_async_lets_few_candidates_wait_for_blocks_in_training(tmp_path):
    settings = tiny_settings(mode="async", space={"max_index": 2}, schedule=[[1.0, 9]])
    with Search.open(tmp_path, settings) as search:
        held = asked(search)
        assert len(search.candidates) == len(held) + max(6, len(held)) < search.total
        while held:
            for candidate in held:
                search.tell(candidate, GOOD)
            held = asked(search)
        assert search.finished


# Wrong use


def test_an_outcome_told_twice_or_for_no_candidate_is_refused(tmp_path):
    with Search.open(tmp_path, tiny_settings()) as search:
        held = asked(search)
        search.tell(held[0], GOOD)
        search.tell(held[-1], GOOD)  # waits for its turn
        before = journal_of(tmp_path)
        for candidate in (held[0], held[-1]):
            with pytest.raises(
                ValueError, match=f"candidate {candidate.number}: it was told before"
            ):
                search.tell(candidate, GOOD)
        block = Block.parse("(1,7,0,0,0)")
        for number in (-1, 0, 99):
            stranger = Candidate(number, 0, 1.0, block, block.key)
            with pytest.raises(ValueError, match=f"candidate {number}: it was not proposed"):
                search.tell(stranger, GOOD)
        assert journal_of(tmp_path) == before


def test_a_full_disk_loses_the_tell_and_nothing_else(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    settings = tiny_settings()
    with Search.open(tmp_path, settings) as search:
        held = asked(search)
        for candidate in (held[0], held[-1]):  # one for the journal, one that comes early
            before = journal_of(tmp_path)
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", full)
                with pytest.raises(SearchError, match="No space left on device.*nothing"):
                    search.tell(candidate, GOOD)
            assert journal_of(tmp_path) == before
            assert search.result(candidate.number) is None
            search.tell(candidate, GOOD)


def test_a_full_disk_while_proposing_loses_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with Search.open(tmp_path, tiny_settings()) as search:
        before = journal_of(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(SearchError, match="cannot write in"):
                search.ask()
        assert journal_of(tmp_path) == before
        assert search.ask().number == 0


def test_a_directory_that_cannot_be_is_explained(tmp_path):
    (tmp_path / "runs").write_text("a file, not a directory")
    with pytest.raises(SearchError, match=r"cannot write in .*runs/x \(Not a directory\)"):
        Search.open(tmp_path / "runs" / "x", tiny_settings())
    with pytest.raises(SearchError, match="File exists"):
        Search.open(tmp_path / "runs", tiny_settings())


def test_reading_what_is_not_there_is_explained(tmp_path):
    with pytest.raises(SearchError, match="there is no search in .*nowhere"):
        read_search(tmp_path / "nowhere")
    (tmp_path / "journal.jsonl").touch()
    with pytest.raises(SearchError, match="has not begun"):
        read_search(tmp_path)


# Results


def test_best_are_distinct_trained_blocks_in_order(uninterrupted):
    view = read_search(uninterrupted)
    best = view.best(100)
    rewards = [result.reward for result in best]
    assert rewards == sorted(rewards, reverse=True)
    keys = [result.candidate.key for result in best]
    assert len(keys) == len(set(keys))
    trained = [r for r in view.results if r.outcome.kind == "trained"]
    assert set(keys) == {r.candidate.key for r in trained}
    assert rewards[0] == max(r.reward for r in trained)
    assert view.best(3) == best[:3]
    assert view.best(0) == []


def test_reading_while_writing_sees_a_prefix_of_the_search(tmp_path):
    seen = []
    with Search.open(tmp_path, tiny_settings()) as search:
        while (candidate := search.ask()) is not None:
            search.tell(candidate, supplied(candidate))
            view = read_search(tmp_path)
            assert view.results == search.results
            assert view.pending == search.pending
            assert view.iteration == search.iteration
            assert view.epsilon == search.epsilon
            assert view.task == search.task
            seen.append(len(view.results))
        assert read_search(tmp_path).finished
    assert seen == sorted(seen)


def test_reading_a_journal_torn_while_it_is_written(uninterrupted, tmp_path):
    whole = (uninterrupted / "journal.jsonl").read_bytes()
    begin = whole.index(b"\n") + 1
    for size in range(begin, len(whole), 97):
        (tmp_path / "journal.jsonl").write_bytes(whole[:size])
        view = read_search(tmp_path)
        assert len(view.results) <= 30
        assert (tmp_path / "journal.jsonl").read_bytes() == whole[:size]


@pytest.mark.parametrize("kind", ["random", "evolution"])
def test_the_baselines_are_as_reproducible(tmp_path, kind):
    agent = (
        {"kind": kind, "population": 8, "tournament": 3} if kind == "evolution" else {"kind": kind}
    )
    settings = tiny_settings(agent=agent)
    finish(tmp_path / "whole", settings)
    rng = random.Random(1)
    while not finish(tmp_path / "killed", settings, rng=rng, most=4).finished:
        pass
    assert timeless(tmp_path / "killed") == timeless(tmp_path / "whole")


def test_a_search_of_the_paper_s_size_with_supplied_outcomes(tmp_path):
    settings = tiny_settings(
        batch=64,
        schedule=PAPER_SCHEDULE,
        space={"max_index": 23},
        agent={"learning_rate": 0.01, "replay": 64},
    )
    search = finish(tmp_path, settings)
    assert search.finished
    assert len(search.results) == 11_392
    assert all(math.isfinite(result.reward) for result in search.results)
    assert search.best(1)[0].reward == max(
        r.reward for r in search.results if r.outcome.kind == "trained"
    )
