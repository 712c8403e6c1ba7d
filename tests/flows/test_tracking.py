"""MLflow shows what the journal says, once, whatever happened in between."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tiny_search import cached_load, finish, tiny_settings

from blockqnn.search.outcome import Outcome
from blockqnn.search.search import read_search
from blockqnn.storage import DirectoryLock
from flows.cli import main
from flows.tracking.background import BackgroundWriter
from flows.tracking.searches import SearchRuns
from flows.tracking.store import database_lock, tracking_uri

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:sqlalchemy.exc.SADeprecationWarning"  # MLflow's own
)

CHECKOUT = Path(__file__).parents[2]
SYNC = """
import sys
from pathlib import Path
from flows.tracking.searches import SearchRuns
directory = Path(sys.argv[1])
SearchRuns(directory, "demo", directory.parent).sync()
"""


@pytest.fixture(autouse=True, scope="module")
def own_database():
    """Nothing of the environment's; and journals do not wait for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr("blockqnn.search.search.load", cached_load)
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """An MLflow database without runs; making one takes two seconds, copying it none."""
    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory, empty_database):
    """Runs with a finished search of 30 candidates, mirrored; for tests that only look."""
    runs = tmp_path_factory.mktemp("mirrored")
    shutil.copy(empty_database, runs / "mlflow.db")
    finish(runs / "demo", tiny_settings())
    SearchRuns(runs / "demo", "demo", runs).sync()
    return runs


@pytest.fixture
def runs(tmp_path, mirrored):
    """A copy of them that a test may change."""
    return shutil.copytree(mirrored, tmp_path / "runs")


@pytest.fixture
def tracker(tmp_path, mirrored, empty_database):
    """The same search, not mirrored yet, in a directory of its own."""
    runs = tmp_path / "fresh"
    shutil.copytree(mirrored / "demo", runs / "demo")
    shutil.copy(empty_database, runs / "mlflow.db")
    return SearchRuns(runs / "demo", "demo", runs)


def mirror(runs, name="demo"):
    """The parents and the children that MLflow has."""
    client = MlflowClient(tracking_uri=tracking_uri(runs))
    experiment = client.get_experiment_by_name(f"blockqnn/{name}")
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    children = [run for run in found if "mlflow.parentRunId" in run.data.tags]
    return [run for run in found if run not in children], children


def by_number(children):
    """Everything about the children but their ids."""
    kept = {}
    for run in children:
        tags = {k: v for k, v in run.data.tags.items() if k != "mlflow.parentRunId"}
        shown = f"![block](/get-artifact?path=block.svg&run_uuid={run.info.run_id})"
        note, found, rest = tags["mlflow.note.content"].partition(shown)
        assert (found, rest) == (shown, "")  # the drawing is in the description
        tags["mlflow.note.content"] = note.strip()
        number = int(tags["number"])
        assert number not in kept, f"candidate {number} has two runs"
        times = (run.info.start_time, run.info.end_time, run.info.status)
        kept[number] = (run.data.params, run.data.metrics, tags, times)
    return kept


def history_lengths(runs, run, *names):
    client = MlflowClient(tracking_uri=tracking_uri(runs))
    return [len(client.get_metric_history(run.info.run_id, name)) for name in names]


def distinct(runs):
    """Results that have a run of their own, by number."""
    results = read_search(runs / "demo").results
    return {r.candidate.number: r for r in results if r.same_as is None}


def test_each_distinct_block_is_one_run_below_the_searchs(mirrored):
    (parent,), children = mirror(mirrored)
    expected = distinct(mirrored)
    assert by_number(children).keys() == expected.keys()
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    kinds = {run.data.tags["outcome"] for run in children}
    assert kinds == {r.outcome.kind for r in expected.values()}
    assert len(kinds) > 1, "the supplied outcomes should have a bad one"


def test_a_run_says_everything_about_its_block(mirrored):
    kept = by_number(mirror(mirrored)[1])
    for number, result in distinct(mirrored).items():
        candidate, outcome, cost = result.candidate, result.outcome, result.cost
        params, metrics, tags, (start, end, status) = kept[number]
        assert tags["code"] == str(candidate.block)
        assert tags["epsilon"] == str(candidate.epsilon)
        assert params["layers"] == str(len(candidate.block.layers) - 1)
        kinds = re.findall(
            r"\(\d+,(\d)", tags["code"]
        )  # table 1 of the paper: 1 convolution, 2 and 3
        assert params["convolutions"] == str(kinds.count("1"))
        assert params["poolings"] == str(kinds.count("2") + kinds.count("3"))
        assert tags["key"] == candidate.key
        assert tags.get("mlflow.note.content", "") == outcome.reason
        assert metrics["reward"] == result.reward
        assert (metrics["macs"], metrics["parameters"]) == (cost.macs, cost.parameters)
        assert metrics.get("accuracy") == outcome.accuracy
        assert end - start == pytest.approx(outcome.seconds * 1000, abs=1)
        assert status == "FINISHED"


def test_a_run_has_the_drawing_and_the_data_set(mirrored):
    (parent,), children = mirror(mirrored)
    client = MlflowClient(tracking_uri=tracking_uri(mirrored))
    drawing = Path(client.download_artifacts(children[0].info.run_id, "block.svg"))
    assert drawing.read_text().startswith("<svg")
    fingerprint = read_search(mirrored / "demo").task.fingerprint
    for run in (parent, children[0]):
        (given,) = client.get_run(run.info.run_id).inputs.dataset_inputs
        assert given.dataset.name == "digits"
        assert fingerprint.startswith(given.dataset.digest)
    assert parent.data.tags["fingerprint"] == fingerprint
    assert parent.data.params["recipe.epochs"] == "3"


def test_the_searchs_run_has_its_pictures_and_its_page_the_right_columns(mirrored):
    (parent,), _ = mirror(mirrored)
    client = MlflowClient(tracking_uri=tracking_uri(mirrored))
    kept = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"learning_curve.png", "front.png", "best.md", "best_1.png"} <= kept
    table = Path(client.download_artifacts(parent.info.run_id, "best.md")).read_text()
    assert str(read_search(mirrored / "demo").best(1)[0].candidate.block) in table
    experiment = client.get_experiment_by_name("blockqnn/demo")
    view = json.loads(experiment.tags["mlflow.sharedViewState.best"])
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`reward`", False)
    assert {"metrics.`reward`", "metrics.`accuracy`", "tags.`code`"} <= set(view["selectedColumns"])
    assert "Block search `demo` on digits" in experiment.tags["mlflow.note.content"]


def test_track_ends_what_a_kill_left_running(tmp_path, empty_database, capsys):
    runs = tmp_path / "runs"
    runs.mkdir()
    shutil.copy(empty_database, runs / "mlflow.db")
    finish(runs / "demo", tiny_settings(), most=5)
    SearchRuns(runs / "demo", "demo", runs).sync()
    (parent,), _ = mirror(runs)
    assert parent.info.status == "RUNNING"
    holder = DirectoryLock(runs / "demo")
    assert main(["track", "demo", "--runs", str(runs)]) == 0
    assert mirror(runs)[0][0].info.status == "RUNNING"  # somebody is at work
    holder.release()
    assert main(["track", "demo", "--runs", str(runs)]) == 0
    assert mirror(runs)[0][0].info.status == "KILLED"
    finish(runs / "demo", tiny_settings())
    SearchRuns(runs / "demo", "demo", runs).sync()
    assert mirror(runs)[0][0].info.status == "FINISHED"


def test_the_searchs_run_has_one_point_an_iteration(mirrored):
    (parent,), _ = mirror(mirrored)
    history = read_search(mirrored / "demo")
    names = ("epsilon", "mean_reward", "best_reward", "distinct_blocks")
    assert history_lengths(mirrored, parent, *names) == [history.iterations] * len(names)
    assert parent.data.metrics["best_reward"] == max(r.reward for r in history.results)
    assert parent.data.metrics["epsilon"] == 0.0
    assert parent.info.status == "FINISHED"


def test_syncing_again_writes_nothing(mirrored):
    before = by_number(mirror(mirrored)[1])
    assert SearchRuns(mirrored / "demo", "demo", mirrored).sync() == 0
    assert by_number(mirror(mirrored)[1]) == before


def test_a_run_left_half_written_is_completed_not_doubled(runs):
    (parent,), children = mirror(runs)
    client = MlflowClient(tracking_uri=tracking_uri(runs))
    client.update_run(children[0].info.run_id, status="RUNNING")
    client.set_tag(parent.info.run_id, "mirrored_results", "0")
    client.set_tag(parent.info.run_id, "mirrored_iterations", "0")
    assert SearchRuns(runs / "demo", "demo", runs).sync() == 1
    (parent,), children = mirror(runs)
    assert by_number(children).keys() == distinct(runs).keys()
    assert {run.info.status for run in children} == {"FINISHED"}
    assert set(history_lengths(runs, children[0], "reward", "seconds")) == {1}
    assert history_lengths(runs, parent, "mean_reward") == [5]


def test_it_follows_a_search_that_grows(tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    tracker = SearchRuns(tmp_path / "demo", "demo", tmp_path)
    finish(tracker.directory, tiny_settings(), most=5)
    first = tracker.sync()
    assert mirror(tmp_path)[0][0].info.status == "RUNNING"
    finish(tracker.directory, tiny_settings())
    second = tracker.sync()
    assert mirror(tmp_path)[0][0].info.status == "FINISHED"
    longer = tiny_settings(schedule=[[1.0, 2], [0.5, 2], [0.0, 1], [1.0, 3]])
    finish(tracker.directory, longer, most=1)
    third = tracker.sync()
    (parent,), children = mirror(tmp_path)
    assert parent.info.status == "RUNNING"
    assert len(by_number(children)) == first + second + third
    assert "[1.0, 3]" in parent.data.tags["schedule"]


def test_a_search_begun_anew_under_the_same_name_has_its_own_run(runs):
    first = len(mirror(runs)[1])
    shutil.rmtree(runs / "demo")
    finish(runs / "demo", tiny_settings(seed=1))
    second = SearchRuns(runs / "demo", "demo", runs).sync()
    parents, children = mirror(runs)
    assert {run.data.params["seed"] for run in parents} == {"0", "1"}
    assert len(children) == first + second


@pytest.mark.fault(
    "the mirror to MLflow is killed in the middle",
    "the next one completes it, nothing twice",
)
def test_killed_in_the_middle_of_a_sync_it_is_completed_by_the_next(tracker):
    process = subprocess.Popen([sys.executable, "-c", SYNC, str(tracker.directory)], cwd=CHECKOUT)
    while len(mirrored_so_far(tracker.runs)) < 1 and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert tracker.sync() > 0
    (parent,), children = mirror(tracker.runs)
    assert by_number(children).keys() == distinct(tracker.runs).keys()
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    for run in children:
        assert set(history_lengths(tracker.runs, run, "reward", "seconds")) == {1}
    assert history_lengths(tracker.runs, parent, "mean_reward") == [5]


def mirrored_so_far(runs):
    try:
        return mirror(runs)[1]
    except AttributeError:  # the experiment is not there yet
        return []


def test_without_a_database_everything_is_written_again(mirrored, tracker):
    (tracker.runs / "mlflow.db").unlink()
    assert tracker.sync() == len(distinct(mirrored))
    assert by_number(mirror(tracker.runs)[1]) == by_number(mirror(mirrored)[1])


def test_two_syncs_at_once_share_the_work(tracker):
    others = [SearchRuns(tracker.directory, "demo", tracker.runs) for _ in range(2)]
    with ThreadPoolExecutor() as threads:
        written = list(threads.map(SearchRuns.sync, others))
    assert sum(written) == len(distinct(tracker.runs))
    assert by_number(mirror(tracker.runs)[1]).keys() == distinct(tracker.runs).keys()


def test_trouble_is_said_once_and_caught_up(tracker, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with caplog.at_level(logging.WARNING, "flows.tracking.background"):
        behind = BackgroundWriter(tracker)
        behind.request()
        behind.close()
    (record,) = caplog.records
    assert "http://127.0.0.1:9" in record.message
    assert "blockqnn track --name demo" in record.message
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    BackgroundWriter(tracker).close()
    assert by_number(mirror(tracker.runs)[1]).keys() == distinct(tracker.runs).keys()


def test_the_search_s_page_says_what_to_doubt(tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    settings = tiny_settings(schedule=[[1.0, 1]], reward={"objective": "accuracy"})
    finish(tmp_path / "hard", settings, lambda _: Outcome(kind="trained", accuracy=11.0))
    SearchRuns(tmp_path / "hard", "hard", tmp_path).sync()
    client = MlflowClient(tracking_uri=tracking_uri(tmp_path))
    experiment = client.get_experiment_by_name("blockqnn/hard")
    query = "tags.search LIKE '%' and tags.mlflow.runName = 'hard'"
    (parent,) = client.search_runs([experiment.experiment_id], query)
    note = parent.data.tags["mlflow.note.content"]
    assert "Block search `hard` on digits" in note
    assert "11.00 %, is no better than chance" in note


def test_a_writer_with_much_to_write_lets_others_have_a_turn(tmp_path):
    """One takes turn after turn; another, who begins to wait during one of them, gets the next."""
    turns, other = [], []

    def wait_for_a_turn():
        with database_lock(tmp_path):
            other.append(len(turns))

    with ThreadPoolExecutor() as pool:
        for turn in range(8):
            with database_lock(tmp_path):
                if turn == 2:
                    waiting = pool.submit(wait_for_a_turn)
                time.sleep(0.2)
                turns.append(turn)
        waiting.result()
    assert other[0] < 8  # not only after the last
