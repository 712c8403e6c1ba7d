"""The blockqnn command: real searches in processes of their own, exit status and messages."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_search import small_disk, tiny_settings

from blockqnn.errors import SearchError
from blockqnn.search import Search
from blockqnn.search.history import read_search
from blockqnn.storage import DirectoryLock
from flows.cli import main

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a params file and without prefect.toml: no server of the user's is met."""
    place = tmp_path_factory.mktemp("flow")
    settings = tiny_settings(
        batch=3,
        schedule=[[1.0, 1], [0.0, 1]],
        space={"max_index": 3},
        workers={"count": 1, "retries": 60},  # more than Prefect takes delays for
    )
    (place / "params.yaml").write_text(json.dumps({"search": settings.to_dict()}))
    return place


def start(place, *arguments, api=None):
    """`blockqnn` in a process of its own; with a temporary Prefect server unless `api` is one."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(place / "prefect"),
    }
    environment.pop("PREFECT_API_URL", None)
    if api is not None:
        environment["PREFECT_API_URL"] = api
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *map(str, arguments)],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def search(place, *arguments, runs="runs", api=None):
    """Start `blockqnn search` with the params file and nothing else."""
    params = ["--params", place / "params.yaml", "--profile", "none", "--runs", runs]
    return start(place, "search", *params, *arguments, api=api)


def ended(process):
    """Exit status, output and errors."""
    output, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, output, errors


def sentence(errors):
    """The one sentence said."""
    lines = errors.strip().splitlines()
    assert len(lines) == 1, errors
    assert lines[0].startswith("blockqnn: ")
    return lines[0]


@pytest.fixture(scope="module")
def finished(place):
    """A search run to its end, what it printed, and what `status` said meanwhile."""
    process = search(place, "--name", "tiny")
    meanwhile = []
    while process.poll() is None:
        try:
            meanwhile.append(len(read_search(place / "runs" / "tiny").results))
        except SearchError:  # not begun
            pass
        time.sleep(0.05)
    status, output, errors = ended(process)
    assert status == 0, errors
    return place / "runs" / "tiny", output, meanwhile


def test_a_search_runs_to_its_end_and_leaves_a_table_and_pictures(finished):
    directory, output, meanwhile = finished
    view = read_search(directory)
    assert view.finished
    assert len(view.results) == 6
    assert meanwhile == sorted(meanwhile)
    assert "iteration" in output
    assert str(view.best(1)[0].candidate.block) in output
    for name in ("learning_curve.png", "best_1.png", "best.md", "best.csv", "workers/0.log"):
        assert (directory / name).stat().st_size >= (0 if name.endswith("log") else 1), name
    assert not list(directory.glob("candidates/*"))


def test_the_same_command_again_trains_nothing(place, finished, api):
    before = (finished[0] / "journal.jsonl").read_bytes()
    status, output, errors = ended(search(place, "--name", "tiny", api=api))
    assert status == 0, errors
    assert str(read_search(finished[0]).best(1)[0].candidate.block) in output
    assert (finished[0] / "journal.jsonl").read_bytes() == before


def test_a_changed_setting_is_refused(place, finished, api):
    before = (finished[0] / "journal.jsonl").read_bytes()
    status, _, errors = ended(search(place, "--name", "tiny", "--set", "recipe.epochs=9", api=api))
    assert status == 1
    assert "recipe.epochs is 9" in sentence(errors)
    assert "begun with 3" in errors
    assert (finished[0] / "journal.jsonl").read_bytes() == before


def test_status_of_a_finished_and_of_a_running_search(place, finished, tmp_path, capsys):
    directory = finished[0]
    assert main(["status", "--name", "tiny", "--runs", str(place / "runs")]) == 0
    output = capsys.readouterr().out
    assert re.search(r"tiny: iteration 2 of 2, epsilon 0.0, 6 of 6 candidates .*finished", output)
    running = tmp_path / "running"
    running.mkdir()
    lines = (directory / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (running / "journal.jsonl").write_bytes(b"".join(lines[:5]) + lines[5][:20])
    lock = DirectoryLock(running)  # status asks for no lock
    try:
        assert main(["status", "--name", "running", "--runs", str(tmp_path)]) == 0
        output = capsys.readouterr().out
        assert re.search(r"iteration 1 of 2, epsilon 1.0, 1 of 6 .*2 pending", output)
    finally:
        lock.release()


def test_show_a_candidate_a_code_and_a_name(place, finished, tmp_path, capsys):
    runs = ["--name", "tiny", "--runs", str(place / "runs")]
    block = read_search(finished[0]).candidates[0].block
    assert main(["show", "0", *runs]) == 0
    by_number = capsys.readouterr().out
    assert str(block) in by_number
    assert "filters (8, 12)" in by_number
    assert main(["show", str(block)]) == 0
    assert block.key in capsys.readouterr().out
    assert main(["show", "A", "--to", str(tmp_path / "a.svg")]) == 0
    assert "<svg" in (tmp_path / "a.svg").read_text()
    for wrong in ("99", "Z", "(1,9,0,0,0)"):
        capsys.readouterr()
        assert main(["show", wrong, *runs]) == 2
        assert wrong in sentence(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--name", "../else"], "name is '../else'"),
        (["--name", ""], "name is ''"),
        (["--name", "mlflow.db"], "name is 'mlflow.db': `blockqnn serve` and MLflow keep files"),
        (["--name", "mlflow.db-wal"], "name is 'mlflow.db-wal'"),
        (["--name", "MLartifacts"], "name is 'MLartifacts'"),
        (["--name", "serve"], "name is 'serve'"),
        (["--set", "recipe.epoch=3"], "recipe.epoch is not a setting: did you mean epochs?"),
        (["--set", "recipe.epochs=many"], "recipe.epochs is 'many': give a whole number"),
        (["--set", "recipe.epochs=0"], "recipe.epochs is 0: give 1 or more"),
        (["--set", "epochs"], "--set has 'epochs': write key=value"),
        (["--set", "seed=[1"], "not YAML"),
        (["--profile", "demmo"], "profile is 'demmo'"),
        (["--params", "nowhere.yaml"], "cannot read nowhere.yaml"),
    ],
)
def test_wrong_use_is_told_before_anything_starts(place, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(place)
    assert main(["search", "--profile", "none", "--runs", "never", *arguments]) == 2
    assert said in sentence(capsys.readouterr().err)
    assert not (place / "never").exists()


def test_an_unknown_option_is_wrong_use():
    with pytest.raises(SystemExit) as ended_with:
        main(["search", "--epochs", "3"])
    assert ended_with.value.code == 2


@pytest.mark.parametrize("arguments", [["--help"], ["status", "--name", "tiny"]])
def test_help_and_status_wait_for_no_large_library(place, finished, arguments):
    code = (
        "import contextlib, sys\n"
        "from flows.cli import main\n"
        f"with contextlib.suppress(SystemExit): main({arguments})\n"
        "sys.exit(', '.join({'torch', 'prefect', 'mlflow'} & set(sys.modules)) or None)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_search_that_trained_nothing_says_so_by_its_exit_status(place, api):
    tight = search(place, "--name", "tight", "--set", "budget.parameters=1", api=api)
    status, output, errors = ended(tight)
    assert status == 1, errors
    assert "budget.parameters is 1" in output
    assert read_search(place / "runs" / "tight").finished


def test_status_says_why_nothing_was_trained(tmp_path, capsys):
    settings = tiny_settings(budget={"parameters": 1})
    with Search.open(tmp_path / "tight", settings) as search:
        assert search.ask() is None and search.finished
        fewest = min(result.cost.parameters for result in search.results)
    assert main(["status", "--name", "tight", "--runs", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert f"the smallest needs {fewest:,} parameters, budget.parameters is 1" in output
    assert "yet" not in output


@pytest.mark.parametrize("command", ["status", "show"])
def test_a_search_that_is_not_there(tmp_path, capsys, command):
    arguments = ["show", "0"] if command == "show" else ["status"]
    assert main([*arguments, "--name", "none", "--runs", str(tmp_path)]) == 1
    assert "there is no search in" in sentence(capsys.readouterr().err)


def test_missing_data(place, api):
    missing = ["data.name=cifar10", "data.root=nowhere"]
    status, _, errors = ended(search(place, "--name", "missing", "--set", *missing, api=api))
    assert status == 2
    assert "data.download=true" in sentence(errors)
    assert not (place / "runs" / "missing").exists()


def test_runs_that_cannot_be_written(place, api):
    (place / "file").write_text("in the way")
    status, _, errors = ended(search(place, "--name", "x", runs="file", api=api))
    assert status == 1
    assert "cannot write in file/x (Not a directory)" in sentence(errors)
    assert (place / "file").read_text() == "in the way"


def test_a_read_only_disk(tmp_path):
    with small_disk(tmp_path / "disk", 200) as disk:
        Search.open(disk / "begun", tiny_settings()).close()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        for name in ("begun", "new"):
            with pytest.raises(SearchError, match="Read-only file system"):
                Search.open(disk / name, tiny_settings())
        assert not read_search(disk / "begun").finished


@pytest.mark.fault(
    "a line in the middle of the journal is damaged",
    "it is refused, named and left as it is",
)
def test_a_damaged_journal(place, finished, api):
    directory = place / "runs" / "damaged"
    directory.mkdir()
    damaged = (finished[0] / "journal.jsonl").read_bytes().replace(b'"number":1', b'"number":7', 1)
    (directory / "journal.jsonl").write_bytes(damaged)
    status, _, errors = ended(search(place, "--name", "damaged", api=api))
    assert status == 1
    assert "line 3 of runs/damaged/journal.jsonl is damaged" in sentence(errors)
    assert (directory / "journal.jsonl").read_bytes() == damaged


@pytest.mark.fault(
    "the same search is started twice at once",
    "the second is refused and told who runs it",
)
def test_a_second_writer(place, finished, api):
    lock = DirectoryLock(finished[0])
    try:
        status, _, errors = ended(search(place, "--name", "tiny", api=api))
    finally:
        lock.release()
    assert status == 1
    assert f"is in use by process {os.getpid()} on" in sentence(errors)


@pytest.mark.fault(
    "the disk of the journal fills up, then has room again",
    "the search stops in one sentence, and goes on when started again",
)
def test_a_disk_that_fills_up_and_is_freed(place, tmp_path, api):
    with small_disk(tmp_path / "disk", 300) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(b"\0" * 270_000)
        status, _, errors = ended(search(place, "--name", "full", runs=disk, api=api))
        assert status == 1, errors
        assert "free some space" in sentence(errors)
        assert not read_search(disk / "full").finished
        ballast.unlink()
        with Search.open(disk / "full", read_search(disk / "full").settings) as reopened:
            assert reopened.ask() is not None
