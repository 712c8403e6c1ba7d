"""Agents on tables with a known best: what is counted, and that jobs change nothing."""

import itertools
import math

import pytest
from cell_table import write_cells

from blockqnn.errors import SettingsError, UserError
from evaluation.comparison.agents import agent_specs
from evaluation.comparison.cells import CellSpace
from evaluation.comparison.nasbench201 import CellTable, read_nasbench201
from evaluation.comparison.run import PATIENCE, About, BestSoFar, Score, run_agent, run_agents


def small_table(options=(3, 3, 3)):
    space = CellSpace(options)
    scores = {}
    for made in itertools.product(*map(range, options)):
        reward = float(sum(made))
        scores[space.cell(made).key] = Score(reward, 50 + reward)
    about = About(title="t", text="a", measure="accuracy", measured="m", best=56.0)
    return CellTable(space, scores, about)


def test_repeats_count_as_evaluations_and_not_as_trainings():
    proposals = [("a", 10), ("a", 10), ("b", 5), ("a", 10), ("c", 20)]
    every, new = BestSoFar("evaluations"), BestSoFar("trainings")
    for key, reward in proposals:
        for best in (every, new):
            best.add(key, Score(reward, reward + 1))
    run = every.run("x", 0, 5)
    assert run.rewards == (10, 10, 10, 10, 20)
    assert run.accuracies == (11, 11, 11, 11, 21)
    assert (run.evaluations, run.distinct) == ((1, 2, 3, 4, 5), (1, 1, 2, 2, 3))
    run = new.run("x", 0, 5)
    assert run.rewards == (10, 10, 20, 20, 20), "what is missing stays as it was"
    assert (run.evaluations, run.distinct) == ((2, 4, 5, 5, 5), (1, 2, 3, 3, 3))


def test_an_agent_that_repeats_itself_for_ever_is_stopped():
    table = small_table((2, 2))
    (random,) = agent_specs(["random"], 30)
    run = run_agent(random, 0, table, 30, "trainings")
    assert run.distinct[-1] == 4 and len(run.rewards) == 30
    assert PATIENCE <= run.evaluations[-1] < PATIENCE + 1 + 200


def test_every_agent_finds_the_best_of_a_small_table():
    for spec in agent_specs(["dyna_q", "q_learning", "evolution", "random", "tpe"], 27):
        run = run_agent(spec, 1, small_table(), 27, "trainings")
        assert (run.rewards[-1], run.accuracies[-1]) == (6.0, 56.0), spec.label
        assert list(run.rewards) == sorted(run.rewards)


def test_the_number_of_jobs_changes_nothing():
    agents = agent_specs(["dyna_q:imagined=16", "evolution", "tpe"], 14)
    arrived = []
    alone, together = (
        run_agents(
            small_table(),
            agents,
            budget=14,
            unit="evaluations",
            seeds=2,
            jobs=jobs,
            done=arrived.append,
        )
        for jobs in (1, 2)
    )
    assert len(arrived) == 12
    for one, other in zip(alone, together, strict=True):
        assert (one.label, one.seed, one.rewards) == (other.label, other.seed, other.rewards)


def test_settings_of_an_agent_follow_its_name():
    texts = ["q_learning:learning_rate=0.1:batch=4", "evolution", "evolution:population=20", "tpe"]
    quick, evolution, small, tpe = agent_specs(texts, 400)
    assert (quick.settings.learning_rate, quick.batch) == (0.1, 4)
    assert (evolution.settings.population, evolution.settings.tournament) == (50, 10)
    assert (small.settings.population, small.settings.tournament) == (20, 4)
    assert tpe.settings is None
    assert [quick.epsilon(done, 400) for done in (0, 399)] == [1.0, 0.1]
    assert agent_specs(["dyna_q"], 400)[0].epsilon(9, 400) == 1.0
    assert agent_specs(["dyna_q"], 400)[0].epsilon(10, 400) == 0.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("genius", "agents is 'genius': choose of dyna_q"),
        ("random:batch=0", "give batch a whole number from 1 to 100, the budget"),
        ("random:batch=101", "give batch a whole number from 1 to 100, the budget"),
        ("evolution:population=99999999999999999999", "agent.population is 9+: give 2 to 1,000"),
        ("q_learning:replay=99999999999", "agent.replay is 9+: give 0 to 1,000,000"),
        ("q_learning:learning_rate=fast", "'fast' is no number"),
        ("q_learning:learning_rate=5", "learning_rate is 5.0: give more than 0"),
        ("q_learning:speed=5", "agent.speed is not a setting"),
        ("q_learning:", "write name:setting=value"),
        ("tpe:gamma=1", "tpe has no settings"),
    ],
)
def test_agents_that_there_are_not(text, message):
    with pytest.raises(SettingsError, match=message):
        agent_specs([text], 100)


@pytest.mark.parametrize("reward", [math.nan, math.inf])
def test_a_table_has_a_finite_number_for_every_cell(reward):
    space = CellSpace((2, 2))
    scores = {space.cell(o).key: Score(1.0, 1.0) for o in itertools.product((0, 1), repeat=2)}
    with pytest.raises(UserError, match=r"has Score.* for the cell 1\.0: give finite numbers"):
        CellTable(space, scores | {"1.0": Score(reward, 1.0)}, None)
    del scores["0.1"]
    with pytest.raises(UserError, match="has 3 cells: all 4 are needed"):
        CellTable(space, scores, None)


def test_an_agent_is_named_once():
    with pytest.raises(SettingsError, match="name each once"):
        agent_specs(["random", "random"], 100)


def test_cells_of_nasbench201(tmp_path):
    path = write_cells(tmp_path / "cells.csv.gz")
    table = read_nasbench201(path, "cifar10")
    assert table.score(table.space.cell((1, 2, 3, 4, 0, 1))) == Score(11, 61)
    assert (table.about.best, len(table.about.published)) == (74, 4)
    other = read_nasbench201(path, "cifar100")
    assert other.score(other.space.cell((0, 0, 0, 0, 0, 4))) == Score(4, 5)
    assert other.about.published == ()
    with pytest.raises(SettingsError, match="data is 'mnist': choose one of cifar10"):
        read_nasbench201(path, "mnist")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "has 15,624 cells: all 15,625 are needed"),
        (lambda lines: ["a,b", *lines[1:]], "line 1: there is no column code"),
        (lambda lines: [*lines, lines[-1]], "line 15627: 444444 is there twice"),
        (lambda lines: [lines[0], "000009,1,2,3,4"], "line 2: .* is no cell"),
        (lambda lines: [lines[0], "000000,many,2,3,4"], "line 2: could not convert"),
        (lambda lines: [lines[0], "000000,nan,2,3,4"], "line 2: .* are not percent"),
        (lambda lines: [lines[0], "000000"], "line 2: "),
    ],
)
def test_tables_that_are_none(tmp_path, change, message):
    path = write_cells(tmp_path / "cells.csv.gz", change)
    with pytest.raises(UserError, match=message):
        read_nasbench201(path, "cifar10")


@pytest.mark.parametrize(
    "content", [b"\x1f\x8bnothing", b"\x1f\x8b\x08\0\0\0\0\0\0\0zzzz", b"\xff"]
)
def test_files_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "cells.csv.gz"
    with pytest.raises(UserError, match="No such file"):
        read_nasbench201(path, "cifar10")
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot read .*: give a CSV"):
        read_nasbench201(path, "cifar10")
