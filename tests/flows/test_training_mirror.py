"""Final trainings in MLflow, from their files alone: runs, live curves, test metrics, models."""

import json
import shutil

import pytest
from mlflow import MlflowClient
from tiny_trainings import Place, train_here

from blockqnn.storage import write_json
from blockqnn.training.final.result import read_result
from blockqnn.zoo import BLOCKS
from flows.cli import main
from flows.tracking.store import tracking_uri
from flows.tracking.trainings import TrainingRuns

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:sqlalchemy.exc.SADeprecationWarning",  # MLflow's own
)

EVALUATION = {
    "finished": 2_000_000_000.0,
    "settings": {},
    "test": {
        "top1": {"value": 91.5, "low": 90.0, "high": 93.0},
        "top5": {"value": 99.0, "low": 98.0, "high": 99.5},
        "nll": 0.25,
        "ece": 2.5,
    },
    "larger": None,
    "speed": [{"batch": 1, "milliseconds": 3.5}, {"batch": 8, "milliseconds": None}],
}


@pytest.fixture(autouse=True, scope="module")
def own_database():
    """Nothing of the environment's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run with a selection of one, its winner, another block, and one that has only begun."""
    place = Place(tmp_path_factory.mktemp("mirror"))
    block = BLOCKS["residual"]
    selecting = train_here(place.job("block-1", split="train", seed=3, block=block))
    winner = train_here(place.job("winner", block=block))
    other = train_here(place.job("plain", block=BLOCKS["plain"]))
    begun = place.job("test_resnet", timm="test_resnet")
    curve = read_result(other)["curve"]
    progress = {"epoch": 1, "epochs": 2, "step": 0, "steps": 5, "curve": curve[:1], "time": 1e9}
    (begun / "progress.json").write_text(json.dumps(progress))
    accuracy = read_result(selecting)["accuracy"]
    row = {"block": str(block), "accuracy": accuracy, "number": 7}
    ranking = [{"rank": 1, "label": "block-1", **row, "id": selecting.name}]
    selection = {"version": 1, "search": "tiny", "ranking": ranking, "winner": row}
    write_json(selection, place.run / "selection.json")
    (place.run / "evaluations").mkdir()
    evaluation = {"id": winner.name, "identity": read_result(winner)["identity"], **EVALUATION}
    write_json(evaluation, place.run / "evaluations" / f"{winner.name}.json")
    place.directories = {path.name.partition("-")[0]: path for path in (selecting, winner, other)}
    place.begun = begun
    TrainingRuns(place.run, "train-digits", place.runs).sync()
    return place


def mirrored(place):
    """The run above the others, and the others by the directory of their training."""
    client = MlflowClient(tracking_uri=tracking_uri(place.runs))
    experiment = client.get_experiment_by_name("blockqnn/train-digits")
    found = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in found if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    by_training = {run.data.tags["training"]: run for run in children}
    assert len(by_training) == len(children)
    return parent, by_training


def history(place, run, name):
    client = MlflowClient(tracking_uri=tracking_uri(place.runs))
    found = client.get_metric_history(run.info.run_id, name)
    return {point.step: point.value for point in found}, len(found)


def test_each_training_is_a_run_below_the_selections(place):
    parent, children = mirrored(place)
    assert set(children) == {path.name for path in [*place.directories.values(), place.begun]}
    assert "candidate 7 won" in parent.data.tags["mlflow.note.content"]
    assert parent.data.tags["winner"] == str(BLOCKS["residual"])
    assert parent.info.status == "RUNNING"
    run = children[place.directories["winner"].name]
    assert run.info.status == "FINISHED"
    assert run.data.params["block"] == str(BLOCKS["residual"])
    assert run.data.params["recipe.learning_rate"] == "0.05"
    assert run.data.params["recipe.schedule"] == "cosine"
    assert run.data.params["network.filters"] == "(8,)"
    assert (run.data.params["split"], run.data.params["seed"]) == ("everything", "0")
    assert run.data.tags["outcome"] == "trained"
    (used,) = run.inputs.dataset_inputs
    assert used.dataset.name == "digits"


def test_what_was_planned_and_never_begun_keeps_nothing_running(place, tmp_path):
    copy = Place(tmp_path / "copy")
    shutil.copytree(place.run, copy.run)  # without a database
    (copy.run / "trainings" / place.begun.name / "progress.json").unlink()
    TrainingRuns(copy.run, "train-digits", copy.runs).sync()
    parent, children = mirrored(copy)
    assert parent.info.status == "FINISHED"
    assert place.begun.name not in children


def test_curves_are_the_results(place):
    _, children = mirrored(place)
    for directory in place.directories.values():
        result = read_result(directory)
        for name in ("loss", "train_accuracy", "learning_rate", "images_per_second"):
            points, count = history(place, children[directory.name], name)
            assert points == {entry["epoch"]: entry[name] for entry in result["curve"]}
            assert count == 2
        memory, _ = history(place, children[directory.name], "system/process_memory_megabytes")
        assert memory == {e["epoch"]: pytest.approx(e["memory"] / 1e6) for e in result["curve"]}
        assert children[directory.name].data.metrics["parameters"] == result["parameters"]
    accuracy, _ = history(place, children[place.directories["block"].name], "accuracy")
    assert accuracy[2] == read_result(place.directories["block"])["accuracy"]


def test_a_running_training_shows_how_far_it_is_and_goes_on(place, tmp_path):
    _, children = mirrored(place)
    run = children[place.begun.name]
    assert run.info.status == "RUNNING"
    assert history(place, run, "loss")[1] == 1
    copy = Place(tmp_path / "copy")
    shutil.copytree(place.runs, copy.runs)
    mirror = TrainingRuns(copy.run, "train-digits", copy.runs)
    assert mirror.sync() == 0
    begun = copy.run / "trainings" / place.begun.name
    progress = json.loads((begun / "progress.json").read_text())
    curve = read_result(place.directories["plain"])["curve"]
    (begun / "progress.json").write_text(json.dumps(progress | {"curve": curve, "time": 1e9 + 9}))
    assert mirror.sync() == 1
    assert mirror.sync() == 0
    _, children = mirrored(copy)
    points, count = history(copy, children[begun.name], "loss")
    assert (set(points), count) == ({1, 2}, 2)


def test_test_metrics_stand_beside(place):
    _, children = mirrored(place)
    metrics = children[place.directories["winner"].name].data.metrics
    wanted = {"test_top1": 91.5, "test_top5": 99.0, "test_nll": 0.25, "test_ece": 2.5}
    assert {name: metrics[name] for name in wanted} == wanted
    assert metrics["milliseconds_batch_1"] == 3.5
    assert "milliseconds_batch_8" not in metrics
    assert "test_top1" not in children[place.directories["plain"].name].data.metrics


def test_final_networks_are_registered_and_the_winner_is_champion(place):
    client = MlflowClient(tracking_uri=tracking_uri(place.runs))
    versions = client.search_model_versions("name = 'blockqnn-digits'")
    assert {version.tags["label"] for version in versions} == {"winner", "plain"}
    champion = client.get_model_version_by_alias("blockqnn-digits", "champion")
    assert champion.tags["label"] == "winner"
    assert champion.tags["test_top1"] == "91.50"
    _, children = mirrored(place)
    assert champion.run_id == children[place.directories["winner"].name].info.run_id


def test_a_deleted_database_is_written_again_by_track(place, tmp_path, capsys):
    copy = Place(tmp_path / "copy")
    shutil.copytree(place.runs, copy.runs, ignore=shutil.ignore_patterns("mlflow.db", "mlart*"))
    assert main(["track", "--name", "train-digits", "--runs", str(copy.runs)]) == 0
    assert "4 runs written to sqlite" in capsys.readouterr().out
    old, new = mirrored(place)[1], mirrored(copy)[1]
    assert old.keys() == new.keys()
    for name in old:
        assert old[name].data.metrics == new[name].data.metrics
        assert old[name].data.params == new[name].data.params
        assert old[name].info.start_time == new[name].info.start_time
    client = MlflowClient(tracking_uri=tracking_uri(copy.runs))
    champion = client.get_model_version_by_alias("blockqnn-digits", "champion")
    assert champion.tags["label"] == "winner"


def test_a_run_that_is_not_there(tmp_path, capsys):
    assert main(["track", "--name", "none", "--runs", str(tmp_path)]) == 1
    assert "there is no search in" in capsys.readouterr().err
