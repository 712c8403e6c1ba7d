"""Model versions: what others find in the registry, and load with MLflow and torch alone."""

import json
import os
import shutil
import subprocess
import sys

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import get_model_info
from tiny_run import name_of, result

from blockqnn.errors import SearchError
from blockqnn.network import build_network
from blockqnn.network.timm_networks import build_comparator
from blockqnn.network.weights import save_weights
from blockqnn.zoo import BLOCKS
from flows.tracking.registry import model_name, register, set_champion

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:sqlalchemy.exc.SADeprecationWarning"  # MLflow's own
)

CODE = str(BLOCKS["inception"])
DATA = {
    "label": "pets",
    "name": "folder",
    "classes": ["cat", "dog", "horse"],
    "in_channels": 3,
    "image_size": 16,
    "fingerprint": "f1f2",
    "train_images": 1_200,
    "held_out_images": 0,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.25, 0.25, 0.125],
}
SHAPES = {"num_classes": 3, "in_channels": 3}
LOAD = """
import json, os, sys
import mlflow.pytorch
import torch

images = torch.load(sys.argv[1], weights_only=True)
network = mlflow.pytorch.load_model("models:/blockqnn-pets@champion")
outputs = [network(images[:count]).tolist() for count in (1, 2, 5)]
strangers = {name.partition(".")[0] for name in sys.modules} & {"blockqnn", "timm", "flows"}
print(json.dumps([outputs, sorted(strangers)]))
"""


class Place:
    """A database with an experiment, and finished trainings written by hand."""

    def __init__(self, directory, database):
        self.directory = directory
        shutil.copy(database, directory / "mlflow.db")
        self.uri = f"sqlite:///{directory / 'mlflow.db'}"
        self.client = MlflowClient(tracking_uri=self.uri)
        self.artifacts = directory / "mlartifacts"
        self.experiment = self.client.create_experiment("pets", self.artifacts.as_uri())

    def run(self):
        return self.client.create_run(self.experiment).info.run_id

    def training(self, seed=0, **changes):
        """(directory, network) of a training of the inception block."""
        torch.manual_seed(seed)
        sizes = {"filters": (4, 6), "repeats": 1, "skeleton": "cifar"}
        network = build_network(BLOCKS["inception"], **sizes, **SHAPES)
        network(torch.randn(8, 3, 16, 16))  # so that its batch norms have seen something
        described = {key: json.dumps(value) for key, value in sizes.items()}
        metadata = {"block": CODE, **described, "skeleton": "cifar"}
        content = result("inception", seed=seed, block=CODE, data=DATA, **changes)
        return self.write(content, network, metadata), network.eval()

    def write(self, content, network, metadata):
        directory = self.directory / "trainings" / name_of(content)
        directory.mkdir(parents=True)
        (directory / "result.json").write_text(json.dumps(content))
        shapes = {"num_classes": "3", "in_channels": "3", "image_size": "16"}
        facts = {key: json.dumps(DATA[key]) for key in ("classes", "mean", "std")}
        save_weights(network, directory / "weights.safetensors", metadata | shapes | facts)
        return directory

    def versions(self):
        found = self.client.search_model_versions("name = 'blockqnn-pets'")
        return {int(version.version): version for version in found}

    def models(self):
        return self.client.search_logged_models([self.experiment])

    def register(self, training, run_id=None, **options):
        return register(self.uri, run_id or self.run(), training, **options)


def settings_of_mlflow():
    """What MLflow's functions for a whole process change."""
    variables = {name: text for name, text in os.environ.items() if name.startswith("MLFLOW")}
    return mlflow.get_tracking_uri(), mlflow.active_run(), variables


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """An MLflow database without runs; making one takes two seconds, copying it none."""
    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def place(tmp_path, empty_database, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)  # where MLflow would put a database that nobody asked for
    return Place(tmp_path, empty_database)


def test_a_registered_network_is_known_by_what_is_needed_to_use_it(place):
    training, network = place.training(commit="abc123")
    run_id, before = place.run(), settings_of_mlflow()
    assert model_name("pets") == "blockqnn-pets"
    number = place.register(training, run_id, tags={"test_accuracy": "71.5"})

    assert number == "1"
    version = place.versions()[1]
    expected = {
        "label": "inception",
        "block": CODE,
        "data": "pets",
        "split": "everything",
        "seed": "0",
        "epochs": "2",
        "train_accuracy": "80.0",
        "test_accuracy": "71.5",
        "commit": "abc123",
        "identity": json.loads((training / "result.json").read_text())["identity"],
    }
    assert expected.items() <= version.tags.items()
    assert version.run_id == run_id and version.status == "READY"
    assert f"Block `{CODE}`, trained on 1,200 images of folder for 2 epochs with seed 0" in (
        version.description
    )
    assert "(N, 3, 16, 16)" in version.description
    assert "mean [0.5, 0.4, 0.3] and deviation [0.25, 0.25, 0.125]" in version.description

    (model,) = place.models()
    assert str(model.status) == "READY" and model.source_run_id == run_id
    outputs = place.client.get_run(run_id).outputs.model_outputs
    assert [output.model_id for output in outputs] == [model.model_id]
    files = place.artifacts / "models" / model.model_id / "artifacts"
    assert "inception" in (files / "block.svg").read_text()
    requirements = (files / "requirements.txt").read_text().split()
    assert f"torch=={torch.__version__.partition('+')[0]}" in requirements
    assert not [line for line in requirements if "+" in line or "blockqnn" in line]

    info = get_model_info(files.as_posix())
    assert [spec.shape for spec in info.signature.inputs] == [(-1, 3, 16, 16)]
    assert [spec.shape for spec in info.signature.outputs] == [(-1, 3)]
    assert json.loads(info.metadata["classes"]) == ["cat", "dog", "horse"]
    example = json.loads((files / "input_example.json").read_text())
    images = torch.tensor(example)
    assert images.shape == (2, 3, 16, 16)
    program = torch.export.load(files / "data" / "model.pt2").module()
    torch.testing.assert_close(program(images), network(images))

    assert settings_of_mlflow() == before
    assert not (place.directory / "mlruns").exists()


def test_the_champion_is_loaded_by_a_process_that_has_only_mlflow_and_torch(place):
    (first, _), (second, network) = place.training(0), place.training(1)
    for training in (first, second):
        set_champion(place.uri, "blockqnn-pets", place.register(training))
    images = torch.randn(5, 3, 16, 16)
    torch.save(images, place.directory / "images.pt")
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOAD, str(place.directory / "images.pt")],
        cwd=place.directory,
        env={
            **os.environ,
            "MLFLOW_TRACKING_URI": place.uri,
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            "PYTHONPATH": "",
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    outputs, strangers = json.loads(done.stdout)
    assert strangers == []
    for found in outputs:
        expected = network(images[: len(found)])
        torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-4, atol=1e-5)
    assert [len(found) for found in outputs] == [1, 2, 5]


def test_registering_again_makes_no_second_version(place):
    (first, _), (second, _) = place.training(0), place.training(1)
    assert [place.register(training) for training in (first, second, first)] == ["1", "2", "1"]
    assert place.register(first, tags={"test_accuracy": "60.0"}) == "1"
    assert place.versions()[1].tags["test_accuracy"] == "60.0"
    assert place.versions()[1].tags["label"] == "inception"
    assert len(place.versions()) == len(place.models()) == 2


def test_what_a_kill_leaves_behind_is_used_or_removed(place):
    """Killed before the files are there: a model that is pending. Killed before the version: one
    that is ready.
    """
    training, _ = place.training()
    run_id = place.run()
    identity = json.loads((training / "result.json").read_text())["identity"]
    pending = place.client.create_logged_model(
        place.experiment, "network", run_id, {"identity": identity}
    )
    assert place.register(training, run_id) == "1"
    (ready,) = place.models()
    assert ready.model_id != pending.model_id
    place.client.delete_model_version("blockqnn-pets", "1")
    place.register(training, run_id)
    assert [model.model_id for model in place.models()] == [ready.model_id]
    (version,) = place.versions().values()
    assert ready.model_id in version.source


def test_a_timm_network_is_registered_without_a_drawing(place):
    network = build_comparator("resnet10t", image_size=16, **SHAPES)
    training = place.write(result("resnet10t", data=DATA), network, {"timm": "resnet10t"})
    place.register(training)
    tags = place.versions()[1].tags
    assert tags["timm"] == "resnet10t" and "block" not in tags
    files = {path.name for path in place.artifacts.rglob("*")}
    assert "model.pt2" in files and "block.svg" not in files


def test_a_training_without_a_network_is_refused(place):
    diverged, _ = place.training(outcome="diverged")
    with pytest.raises(SearchError, match="has no network to register: it diverged"):
        place.register(diverged)
    with pytest.raises(SearchError, match="has no network to register: it has not finished"):
        place.register(place.directory / "trainings" / "absent")
    with pytest.raises(MlflowException):
        place.client.get_registered_model("blockqnn-pets")
