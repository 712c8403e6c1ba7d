"""A search whose servers go away in the middle and come back: it ends as if they never had."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from journals import without_workers
from mlflow import MlflowClient
from ray_cluster import PATIENCE, ROOT, wait_for
from tiny_search import finish, timeless, tiny_settings

from blockqnn.errors import SearchError
from blockqnn.search.history import read_search
from blockqnn.workers import leash
from blockqnn.workers.inline import InlineWorker
from blockqnn.workers.protocol import task_of
from flows.servers.prefect_api import prefect_call, server_environment

SMALL = {
    "batch": 3,
    "schedule": [[1.0, 3]],
    "data": {"images": 300},
    "network": {"filters": [4, 8]},
    "recipe": {"epochs": 20},
}


class Server:
    """A server at a port of its own, killed and started again at will."""

    def __init__(self, place, command, path, **environment):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._health = f"{self.url}{path}"
        self._place = place
        self._command = [sys.executable, "-m", *command, "--port", str(self._port)]
        self._environment = server_environment(**environment)
        self.start()

    def start(self):
        with (self._place / "server.log").open("ab") as log:
            self._process = leash.start(self._command, env=self._environment, log=log)
        wait_for(self._answers, "the server")

    def stop(self):
        leash.let_go(self._process)
        assert not self._answers()

    def _answers(self):
        with suppress(OSError), urllib.request.urlopen(self._health, timeout=5):
            return True
        return False


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The journal of the same search, undisturbed, in this process."""
    directory = tmp_path_factory.mktemp("undisturbed")
    settings = tiny_settings(**SMALL, workers={"kind": "inline", "device": "cpu"})
    worker = InlineWorker(settings, settings.workers, directory)
    finish(directory, settings, lambda c: worker.train(task_of(c)))
    return [record for record in without_workers(timeless(directory)) if record["type"] != "begin"]


def told(directory):
    """Outcomes in a journal."""
    with suppress(SearchError):
        return len(read_search(directory).results)
    return 0


def workers_of(flow):
    """Its worker processes."""
    found = []
    for pid in leash.descendants(flow.pid):
        with suppress(OSError):
            if b"blockqnn.workers.process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def search_without(server, place, settings, *, back=True, **environment):
    """Run a search; while some of it is done the server is gone, then, if it comes `back`, there
    again.
    """
    directory = place / "runs" / "search"
    (place / "params.yaml").write_text(json.dumps({"search": settings.to_dict()}))
    given = {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(place / "prefect"), **environment}
    search = ["search", "--name", "search", "--params", "params.yaml", "--profile", "none"]
    log = place / "log"
    with log.open("ab") as output:
        flow = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *search],
            cwd=place,
            env={**os.environ, **given},
            stdout=output,
            stderr=output,
        )
    try:
        wait_for(lambda: told(directory) >= 3 or flow.poll() is not None, "the first outcomes")
        server.stop()
        before = told(directory)
        wait_for(lambda: told(directory) >= before + 2 or flow.poll() is not None, "outcomes")
        assert flow.poll() is None, log.read_text()
        stopped = workers_of(flow) if back else []
        for pid in stopped:  # the end of the search shall see the server again
            os.kill(pid, signal.SIGSTOP)
        assert told(directory) < 9
        if back:
            server.start()
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        assert flow.wait(PATIENCE) == 0, log.read_text()
    finally:
        flow.kill()
        flow.wait()
    return directory


@pytest.mark.slow  # a minute; what a tracker does without MLflow is in test_tracking.py
@pytest.mark.fault("the MLflow server is gone for a while", "the flow goes on; MLflow catches up")
def test_the_mlflow_server_dropped(tmp_path, expected):
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--workers", "1"]
    artifacts = ["--artifacts-destination", str(tmp_path / "artifacts")]
    server = Server(tmp_path, ["mlflow", "server", *store, *artifacts], "/version")
    try:
        settings = tiny_settings(**SMALL, workers={"count": 1}, tracking=True)
        directory = search_without(server, tmp_path, settings, MLFLOW_TRACKING_URI=server.url)
        assert "MLflow" in (tmp_path / "log").read_text()
        records = without_workers(timeless(directory))
        assert [record for record in records if record["type"] != "begin"] == expected
        client = MlflowClient(tracking_uri=server.url)
        experiment = client.get_experiment_by_name("blockqnn/search")
        runs = client.search_runs([experiment.experiment_id], max_results=100)
        children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
        results = [r for r in read_search(directory).results if r.same_as is None]
        mirrored = {int(run.data.tags["number"]): run.data.metrics["reward"] for run in children}
        assert len(children) == len(results)
        assert mirrored == {r.candidate.number: r.reward for r in results}
    finally:
        server.stop()


@pytest.mark.fault("the Prefect server is gone for a while", "the flow goes on, and ends there")
def test_the_prefect_server_dropped(tmp_path, expected):
    home = str(tmp_path / "prefect")
    command = ["prefect", "--no-prompt", "server", "start", "--host", "127.0.0.1", "--no-ui"]
    server = Server(tmp_path, command, "/api/health", PREFECT_HOME=home)
    try:
        settings = tiny_settings(**SMALL, workers={"count": 1})
        api = f"{server.url}/api"
        directory = search_without(server, tmp_path, settings, PREFECT_API_URL=api)
        records = without_workers(timeless(directory))
        assert [record for record in records if record["type"] != "begin"] == expected
        (run,) = prefect_call(f"{api}/flow_runs/filter", {})
        assert run["state_type"] == "COMPLETED"
        said = {
            each["name"]: each["state"]["message"]
            for each in prefect_call(f"{api}/task_runs/filter", {})
        }
        results = [r for r in read_search(directory).results if r.same_as is None]
        assert said.keys() == {f"candidate-{r.candidate.number}" for r in results}
        for result in results:  # none of these was refused, and then not trained
            reward = f"reward {result.reward:.2f}"
            assert reward in said[f"candidate-{result.candidate.number}"]
        (page,) = prefect_call(f"{api}/artifacts/filter", {})
        assert str(results[-1].candidate.number) in page["data"]
    finally:
        server.stop()


@pytest.mark.slow  # minutes: Prefect asks again and again
@pytest.mark.fault("the Prefect server is gone for good", "the flow goes on to its end without it")
def test_the_prefect_server_gone_for_good(tmp_path, expected):
    home = str(tmp_path / "prefect")
    command = ["prefect", "--no-prompt", "server", "start", "--host", "127.0.0.1", "--no-ui"]
    server = Server(tmp_path, command, "/api/health", PREFECT_HOME=home)
    settings = tiny_settings(**SMALL, workers={"count": 1})
    api = f"{server.url}/api"
    directory = search_without(server, tmp_path, settings, back=False, PREFECT_API_URL=api)
    records = without_workers(timeless(directory))
    assert [record for record in records if record["type"] != "begin"] == expected
    said = (tmp_path / "log").read_text()
    assert "ERROR" not in said and "Traceback" not in said
    assert said.count("does not answer: the work goes on") == 1
