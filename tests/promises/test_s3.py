"""What is kept in S3: checkpoints of candidates, MLflow's artifacts, a DVC remote; against a server
of its kind on this machine."""

import os
import warnings

import boto3
import pytest
import torch
from mlflow import MlflowClient
from moto.server import ThreadedMotoServer
from tiny_search import cached_load, finish, tiny_settings

import blockqnn.training.checkpoint
from blockqnn.search.candidate import train_candidate
from blockqnn.search.journal import without_times
from blockqnn.space import Block
from blockqnn.storage.urls import read_url, remove_url, write_url
from blockqnn.workers.ray_workers import check_place
from flows.tracking.searches import SearchRuns
from flows.tracking.store import tracking_uri

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
BLOCK = Block.parse("(1,1,3,0,0)(2,2,3,1,0)(3,5,0,1,2)(4,7,0,0,0)")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bucket():
    """The URL of a bucket; the environment says where it is, as it does for users."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": address,
            "MLFLOW_S3_ENDPOINT_URL": address,
        }.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="store")
        yield "s3://store"
    server.stop()


def keys(prefix):
    found = boto3.client("s3").list_objects_v2(Bucket="store", Prefix=prefix)
    return {entry["Key"] for entry in found.get("Contents", ())}


def test_files_at_urls(bucket):
    url = f"{bucket}/files/a b/x"
    with pytest.raises(FileNotFoundError):
        read_url(url)
    for content in b"first", b"second":
        write_url(url, content)
        assert read_url(url) == content
    remove_url(f"{bucket}/files/a b")
    remove_url(f"{bucket}/files/a b")
    assert keys("files/") == set()


def test_a_place_for_checkpoints_is_tried(bucket):
    check_place(f"{bucket}/blockqnn", f"{bucket}/blockqnn/search")
    assert keys("blockqnn/") == set()


def test_a_candidate_goes_on_elsewhere_from_its_copy(bucket, tmp_path, monkeypatch):
    settings = tiny_settings()
    data = cached_load(settings.data, settings.seed)
    expected = train_candidate(BLOCK, settings, data, tmp_path, CPU)
    copy = f"{bucket}/search/candidates/000003/checkpoint"
    write = blockqnn.training.checkpoint.write_url
    saved = []

    def write_and_lose_the_machine(url, content):
        write(url, content)
        saved.append(content)
        if len(saved) == 1:
            raise KeyboardInterrupt

    (tmp_path / "one").mkdir()
    (tmp_path / "another").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(blockqnn.training.checkpoint, "write_url", write_and_lose_the_machine)
        with pytest.raises(KeyboardInterrupt):
            train_candidate(BLOCK, settings, data, tmp_path / "one", CPU, copy=copy)
    assert read_url(copy) == saved[-1]

    again = []
    monkeypatch.setattr(
        blockqnn.training.checkpoint, "write_url", lambda url, content: again.append(content)
    )
    outcome = train_candidate(BLOCK, settings, data, tmp_path / "another", CPU, copy=copy)
    assert without_times(outcome.to_dict()) == without_times(expected.to_dict())
    assert len(again) == 1, "after the first of three epochs, with the last one not saved"


def test_a_store_that_is_gone_costs_the_copy_alone(tmp_path, caplog):
    settings = tiny_settings()
    data = cached_load(settings.data, settings.seed)
    outcome = train_candidate(BLOCK, settings, data, tmp_path, CPU, copy="nowhere://x/checkpoint")
    assert outcome.kind == "trained"
    assert "is not copied to nowhere://x/checkpoint" in caplog.text


def test_mlflow_keeps_its_artifacts_there(bucket, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", f"{bucket}/mlflow")
    monkeypatch.setattr("blockqnn.search.search.load", cached_load)
    finish(tmp_path / "tiny", tiny_settings(batch=2, schedule=[[1.0, 1]]))
    SearchRuns(tmp_path / "tiny", "tiny", tmp_path).sync()
    pictures = {key for key in keys("mlflow/tiny/") if key.endswith("/artifacts/block.svg")}
    assert len(pictures) == 2
    client = MlflowClient(tracking_uri=tracking_uri(tmp_path))
    experiment = client.get_experiment_by_name("blockqnn/tiny")
    runs = client.search_runs([experiment.experiment_id], "tags.outcome = 'trained'")
    place = client.download_artifacts(runs[0].info.run_id, "block.svg", str(tmp_path))
    assert "<svg" in open(place).read(500)
    assert not list((tmp_path / "mlartifacts").rglob("*.svg"))


def test_a_dvc_remote(bucket, tmp_path, monkeypatch):
    from dvc.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    weights = tmp_path / "models" / "digits" / "S" / "seed-0.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for command in (
            "init --quiet --no-scm",
            "add --quiet models/digits/S",
            f"remote add --quiet --default store {bucket}/dvc",
            "push --quiet",
        ):
            assert main(command.split()) == 0, command
        assert len(keys("dvc/files/")) == 2  # the directory and the file
        for place in "models/digits/S", ".dvc/cache":
            os.rename(place, tmp_path / place.replace("/", "-"))
        assert main(["pull", "--quiet"]) == 0
    assert weights.read_bytes() == b"weights"
