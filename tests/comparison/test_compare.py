"""`blockqnn compare` from end to end."""

import csv
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from cell_table import write_cells
from tiny_search import finish, tiny_settings

from blockqnn.errors import UserError
from blockqnn.search.history import read_search
from blockqnn.settings import DataSettings
from evaluation.comparison.searches import check_comparable
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


def test_the_command_on_the_page_makes_the_page(tmp_path, monkeypatch):
    finish(tmp_path / "runs" / "one", tiny_settings(agent={"kind": "random"}))
    shutil.copy(DIGITS, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLOCKQNN_RUNS", "elsewhere")
    tables = (
        [
            "--blocks",
            Path(DIGITS).name,
            "--agents",
            "random:batch=2",
            "--budget",
            "6",
            "--seeds",
            "1",
        ],
        ["--runs", str(tmp_path / "runs"), "--searches", "one", "--count", "trainings"],
    )
    for words in tables:
        assert main(["compare", *words, "--checkpoints", "2", "5", "--to", "page"]) == 0
        page = Path("page/comparison.md").read_text()
        printed = next(line for line in page.splitlines() if line.startswith("`blockqnn compare"))
        assert main([*shlex.split(printed.strip("`"))[1:], "--to", "again"]) == 0
        again = Path("again/comparison.csv").read_bytes()
        assert again == Path("page/comparison.csv").read_bytes()
        assert {row["counted"] for row in rows_of(Path("page"))} == {"2", "5"}
        assert "nan" not in page and "1 seed," in page


def test_what_was_never_trained_is_no_training(tmp_path, capsys):
    for seed in (0, 1):
        settings = tiny_settings(seed=seed, agent={"kind": "random"}, budget={"parameters": 5000})
        finish(tmp_path / "runs" / f"tight-{seed}", settings)
    finish(tmp_path / "runs" / "none", tiny_settings(budget={"parameters": 1}))
    histories = [read_search(tmp_path / "runs" / f"tight-{seed}") for seed in (0, 1)]
    assert any(r.outcome.kind == "infeasible" for h in histories for r in h.results)
    words = ["compare", "--runs", str(tmp_path / "runs"), "--count", "trainings"]
    words += ["--to", str(tmp_path), "--searches"]
    assert main([*words, "tight-0", "tight-1"]) == 0
    fewest = min(len(history.trainings) for history in histories)
    assert max(int(row["counted"]) for row in rows_of(tmp_path)) == fewest
    assert main([*words, "none"]) == 1
    assert "the search none has trained nothing" in capsys.readouterr().err


def test_images_may_lie_elsewhere(tmp_path):
    finish(tmp_path / "search", tiny_settings())
    one, other = read_search(tmp_path / "search"), read_search(tmp_path / "search")
    for history, root in ((one, "here"), (other, "there")):
        data = DataSettings(name="cifar10", root=root)
        history.settings = replace(history.settings, data=data)
    check_comparable({"one": one, "other": other})
    other.settings = replace(other.settings, data=DataSettings(name="cifar100", root="here"))
    with pytest.raises(UserError, match="one and other|other and one"):
        check_comparable({"one": one, "other": other})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cells", "x.csv", "--budget", "0"], "budget is 0: give 1 to 100,000"),
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
