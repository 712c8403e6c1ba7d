"""`blockqnn compare` from end to end."""

import csv

import pytest
from test_contest import write_cells
from tiny_search import finish, tiny_settings

from flows.cli import main

DIGITS = "benchmarks/data/digits-blocks.csv.gz"


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    return write_cells(tmp_path_factory.mktemp("table") / "cells.csv.gz")


def rows_of(directory):
    with (directory / "comparison.csv").open() as file:
        return list(csv.DictReader(file))


def test_cells(tmp_path, cells, capsys):
    to = tmp_path / "out"
    options = ["--agents", "random,evolution:population=4", "--budget", "20", "--seeds", "3"]
    assert main(["compare", "--cells", str(cells), *options, "--jobs", "1", "--to", str(to)]) == 0
    assert capsys.readouterr().out.strip() == str(to / "comparison.md")
    rows = rows_of(to)
    assert len(rows) == 2 * 3 * 3
    assert {row["counted"] for row in rows} == {"5", "10", "20"}
    assert all(float(row["accuracy"]) == float(row["reward"]) + 50 for row in rows)
    text = (to / "comparison.md").read_text()
    assert "| regularised evolution | 93.92 |" in text
    assert "3 seeds, 20 evaluations" in text and "no difference can be significant" in text
    assert str(tmp_path) not in text
    assert (to / "comparison.png").read_bytes()[:4] == b"\x89PNG"


def test_blocks(tmp_path):
    options = ["--agents", "dyna_q:imagined=16,random", "--budget", "15", "--seeds", "2"]
    words = ["compare", "--blocks", DIGITS, *options, "--count", "trainings", "--jobs", "1"]
    assert main([*words, "--against", "random", "--to", str(tmp_path)]) == 0
    assert {row["distinct"] for row in rows_of(tmp_path) if row["counted"] == "15"} == {"15"}
    assert "## Against random" in (tmp_path / "comparison.md").read_text()


def test_finished_searches(tmp_path, capsys):
    for agent in ({"kind": "random"}, {"kind": "evolution", "population": 8, "tournament": 2}):
        for seed in (0, 1):
            settings = tiny_settings(seed=seed, agent=agent)
            finish(tmp_path / "runs" / f"{agent['kind']}-{seed}", settings)
    names = ["random-0", "random-1", "evolution-0", "evolution-1"]
    words = ["compare", "--runs", str(tmp_path / "runs"), "--to", str(tmp_path), "--searches"]
    assert main([*words, *names]) == 0
    rows = rows_of(tmp_path)
    assert {row["agent"] for row in rows} == {"random", "evolution:population=8:tournament=2"}
    assert max(int(row["evaluations"]) for row in rows) == 30
    assert main([*words, *names[:3]]) == 1
    assert "name one search for every agent and seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cells", "x.csv", "--budget", "0"], "budget is 0: give 1 or more"),
        (["--cells", "x.csv", "--agents", "genius"], "agents is 'genius': choose of"),
        (["--cells", "x.csv", "--against", "tpe"], "against is 'tpe': choose of dyna_q"),
        (["--cells", "x.csv", "--checkpoints", "900"], "checkpoints is 900: give 1 to 400"),
        (["--cells", "x.csv", "--data", "mnist"], "data is 'mnist': choose one of cifar10"),
        (["--blocks", DIGITS, "--data", "cifar10"], "data is 'cifar10': a table of blocks"),
        (["--searches", "a", "--seeds", "3"], "seeds is 3: finished searches have their own"),
        (["--searches", "a", "a"], "searches is 'a': name each once"),
    ],
)
def test_wrong_use(tmp_path, capsys, words, message):
    assert main(["compare", *words, "--to", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_files_that_are_not_there(tmp_path, capsys):
    assert main(["compare", "--cells", "none.csv", "--to", str(tmp_path)]) == 1
    assert "cannot read none.csv (No such file or directory)" in capsys.readouterr().err
    (tmp_path / "x.csv").write_text("key,code\n1,2\n")
    assert main(["compare", "--blocks", str(tmp_path / "x.csv"), "--to", str(tmp_path)]) == 1
    assert "x.csv is no table of blocks (line 2, KeyError" in capsys.readouterr().err
