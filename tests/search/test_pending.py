"""Candidates that wait: each training is handed out once, shared, and recorded in order."""

import pytest

from blockqnn.cost import Cost
from blockqnn.search.outcome import Outcome
from blockqnn.search.pending import Pending, Waiting
from blockqnn.search.records import Candidate
from blockqnn.space import Block

BLOCK = Block.parse("(1,7,0,0,0)")
COST = Cost(parameters=1, macs=1, activation_bytes=1)
GOOD = Outcome(kind="trained", accuracy=50.0)


def pending(keys, in_turn, **known):
    """Candidates numbered from 0, one for each letter, which is its key; `known` has outcomes."""
    opened = Pending(in_turn)
    for number, key in enumerate(keys):
        candidate = Candidate(number, 0, 1.0, BLOCK, key)
        opened.add(Waiting(candidate, COST, known.get(key)))
    return opened


def handed_out(opened):
    return [candidate.number for candidate in iter(opened.next_to_train, None)]


def record_all(opened):
    """Numbers in the order in which they are recorded, each with that of a shared training."""
    order = []
    while ready := opened.ready():
        for waiting in ready:
            assert waiting.outcome is not None
            order.append((waiting.candidate.number, waiting.same_as))
            opened.recorded(waiting)
    return order


@pytest.mark.parametrize("in_turn", [True, False])
def test_a_key_is_handed_out_once(in_turn):
    opened = pending("abacb", in_turn)
    assert handed_out(opened) == [0, 1, 3]
    assert handed_out(opened) == []
    assert {key: len(numbers) for key, numbers in opened.keys.items()} == {"a": 2, "b": 2, "c": 1}


@pytest.mark.parametrize("in_turn", [True, False])
def test_what_is_known_is_not_handed_out(in_turn):
    opened = pending("abab", in_turn, a=Outcome(kind="infeasible", reason="needs more"))
    assert handed_out(opened) == [1]
    opened = pending("ab", in_turn)
    opened.tell(0, GOOD)
    assert handed_out(opened) == [1]


def test_outcomes_are_recorded_in_turn_and_shared():
    opened = pending("abac", in_turn=True)
    for number in (3, 1):
        opened.tell(number, GOOD)
        assert opened.ready() == []
    opened.tell(0, GOOD)
    assert record_all(opened) == [(0, None), (1, None), (2, 0), (3, None)]
    assert opened.keys == {}


def test_without_turns_an_outcome_is_recorded_with_those_that_share_it():
    opened = pending("abaca", in_turn=False)
    opened.tell(3, GOOD)
    assert record_all(opened) == [(3, None)]
    opened.tell(0, GOOD)
    assert record_all(opened) == [(0, None), (2, 0), (4, 0)]
    assert list(opened.keys) == ["b"]


def test_two_of_one_key_are_never_recorded_as_two_trainings():
    opened = pending("aa", in_turn=False, a=GOOD)
    assert [waiting.candidate.number for waiting in opened.ready()] == [0]
    assert record_all(opened) == [(0, None), (1, 0)]


@pytest.mark.parametrize("in_turn", [True, False])
def test_an_outcome_that_is_taken_back_is_not_recorded(in_turn):
    opened = pending("a", in_turn)
    opened.tell(0, GOOD)
    opened.take_back(0)
    assert opened.ready() == []
    assert opened.get(0).outcome is None
    opened.tell(0, GOOD)
    assert record_all(opened) == [(0, None)]
    opened.take_back(0)  # it is in the journal, and stays there
    assert opened.get(0) is None
