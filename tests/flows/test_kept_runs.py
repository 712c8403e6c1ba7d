"""`blockqnn list`, `status`, `best`, `rename`, `delete`, and what the command says to a slip."""

import json
import os
import subprocess
import sys

import pytest
from mlflow import MlflowClient
from tiny_search import cached_load, finish, tiny_settings

from blockqnn.search.history import read_search
from blockqnn.storage import DirectoryLock
from flows.cli import main
from flows.tracking.records import experiment_id
from flows.tracking.searches import SearchRuns
from flows.tracking.store import tracking_uri

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:sqlalchemy.exc.SADeprecationWarning"  # MLflow's own
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished searches, one of them in MLflow too, and one that was stopped."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr("blockqnn.search.search.load", cached_load)
        patch.setattr(os, "fsync", lambda descriptor: None)
        for name in ("pets", "demo"):
            finish(runs / name, tiny_settings())
        SearchRuns(runs / "pets", "pets", runs).sync()
        yield runs


def said(capsys, *arguments, status=0):
    """What the command prints; of one that fails, to standard error."""
    assert main(arguments) == status
    captured = capsys.readouterr()
    return captured.err if status else captured.out


def test_list(runs, capsys):
    holder = DirectoryLock(runs / "demo")
    found = json.loads(said(capsys, "list", "--runs", str(runs), "--json"))
    holder.release()
    assert [(run["name"], run["kind"], run["state"]) for run in found] == [
        ("demo", "search", "running"),
        ("pets", "search", "finished"),
    ]
    best = read_search(runs / "pets").best(1)[0].outcome.accuracy
    assert (found[1]["done"], found[1]["total"], found[1]["best"]) == (30, 30, best)
    size = sum(file.stat().st_size for file in (runs / "pets").rglob("*") if file.is_file())
    assert found[1]["megabytes"] == pytest.approx(size / 1e6, rel=1e-3)
    table = said(capsys, "list", "--runs", str(runs))
    assert "30 of 30" in table and f"{best:.2f}" in table
    (runs / "empty" / "trainings").mkdir(parents=True)
    assert "0 of 0" in said(capsys, "list", "--runs", str(runs))
    (runs / "empty" / "trainings").rmdir()
    (runs / "empty").rmdir()
    assert "There are no runs in" in said(capsys, "list", "--runs", str(runs / "none"))


def test_status_and_best_take_the_name_alone(runs, capsys):
    best = read_search(runs / "pets").best(3)
    for command in ("status", "best"):
        assert str(best[0].candidate.block) in said(capsys, command, "pets", "--runs", str(runs))
    status = json.loads(said(capsys, "status", "pets", "--runs", str(runs), "--json"))
    assert (status["candidates"], status["state"]) == (30, "finished")
    rows = json.loads(said(capsys, "best", "pets", "--top", "3", "--json", "--runs", str(runs)))
    assert [row["number"] for row in rows] == [result.candidate.number for result in best]


def test_mlflow_is_pointed_to(runs, capsys):
    shown = said(capsys, "status", "pets", "--runs", str(runs))
    number = MlflowClient(tracking_uri(runs)).get_experiment_by_name("blockqnn/pets").experiment_id
    assert f"/#/experiments/{number}/runs?viewStateShareKey=best&" in shown
    assert "experiments" not in said(capsys, "status", "demo", "--runs", str(runs))


def test_a_search_that_is_not_there_is_looked_for(runs, capsys):
    assert "did you mean pets?" in said(capsys, "status", "pet", "--runs", str(runs), status=1)
    assert "there are demo, pets" in said(capsys, "best", "zzz", "--runs", str(runs), status=1)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["stats"], "there is no command stats: did you mean status?"),
        (["status", "--jsn"], "there is no option or argument --jsn: did you mean --json?"),
        (["train", "--step", "finals"], "there is no choice for --step: finals: did you mean fin"),
        (["--print-completion", "cmd"], "--print-completion is cmd, and knows bash"),
    ],
)
def test_a_slip_is_told_what_was_meant(arguments, meant, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert meant in error
    assert len(error.splitlines()) == 1


def test_every_help_has_a_sentence_and_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out.partition("COMMAND\n")[2].partition("examples:")[0]
    commands = [
        line.split()[0] for line in listed.splitlines() if line[:5].strip() and line[4] != " "
    ]
    assert {"search", "list", "train", "compare"} <= set(commands)
    for command in commands:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown = capsys.readouterr().out
        assert f"\n  blockqnn {command}" in shown.partition("example")[2], command


def test_bash_completes(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["--print-completion", "bash"])
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    code = (
        f"source {script}; COMP_WORDS=(blockqnn st); COMP_CWORD=1; COMP_LINE='blockqnn st'; "
        "COMP_POINT=${#COMP_LINE}; _shtab_blockqnn; echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["status"]


def test_rename_and_delete_take_mlflow_along(runs, capsys):
    client = MlflowClient(tracking_uri(runs))
    experiment = experiment_id("pets", runs)
    holder = DirectoryLock(runs / "pets")
    error = said(capsys, "rename", "pets", "cats", "--runs", str(runs), status=1)
    assert "pets is in use by process" in error
    holder.release()
    error = said(capsys, "rename", "pets", "demo", "--runs", str(runs), status=2)
    assert "demo is the name of another run" in error
    said(capsys, "rename", "pets", "cats", "--runs", str(runs))
    assert read_search(runs / "cats").finished and not (runs / "pets").exists()
    assert experiment_id("cats", runs) == experiment
    names = [run.info.run_name for run in client.search_runs([experiment], max_results=100)]
    assert "cats" in names and "pets" not in names
    assert SearchRuns(runs / "cats", "cats", runs).sync() == 0  # nothing is written twice

    pictures = runs / "mlartifacts" / "pets"  # where the experiment began
    assert list(pictures.rglob("block.svg"))
    ask = [sys.executable, "-m", "flows.cli", "delete", "cats", "--runs", str(runs)]
    unasked = subprocess.run(ask, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (unasked.returncode, "give --yes" in unasked.stderr) == (2, True)
    said(capsys, "delete", "cats", "--yes", "--runs", str(runs))
    assert not (runs / "cats").exists() and not pictures.exists()
    assert client.get_experiment(experiment).lifecycle_stage == "deleted"
    assert experiment_id("cats", runs) is None
    error = said(capsys, "delete", "cats", "--yes", "--runs", str(runs), status=1)
    assert "there is no run cats in" in error and "there are demo" in error
    finish(runs / "cats", tiny_settings())  # the name is free
    assert SearchRuns(runs / "cats", "cats", runs).sync() > 0


def test_a_reader_who_has_seen_enough(runs):
    command = f"{sys.executable} -m flows.cli show S --json | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("{\n", "")
