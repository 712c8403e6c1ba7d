"""`blockqnn serve` for real: a deployed search runs, and nothing outlives the command."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from flows import guard
from flows.serve import ServeError, serve

CHECKOUT = Path(__file__).parents[1]
PATIENCE = 300  # seconds, for a busy machine
SMALL = {
    "batch": 2,
    "schedule": [[1.0, 1]],
    "space.max_index": 3,
    "data.images": 200,
    "network.filters": [4],
    "recipe.epochs": 1,
    "workers.count": 1,
}


def free_ports():
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


class Served:
    """`blockqnn serve` in a process of its own."""

    def __init__(self, runs):
        self.runs = runs
        self.prefect_port, self.mlflow_port = free_ports()
        self.api = f"http://127.0.0.1:{self.prefect_port}/api"
        self.environment = {
            **{k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"},
            "PREFECT_HOME": str(runs / "home"),
            "PREFECT_API_URL": self.api,
        }

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *self.arguments()],
            cwd=CHECKOUT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                return "".join(lines)
        raise AssertionError(f"serve ended with status {self.process.wait()}: {''.join(lines)}")

    def arguments(self):
        ports = ["--prefect-port", str(self.prefect_port), "--mlflow-port", str(self.mlflow_port)]
        return ["serve", "--runs", str(self.runs), *ports]

    def end(self, number):
        """Send a signal; the exit status, once every process it had started is gone."""
        processes = guard.descendants(self.process.pid)
        assert processes
        self.process.send_signal(number)
        status = self.process.wait(60)
        self.process.stdout.close()
        assert all_end(processes), "processes survived"
        return status

    def run_deployment(self, name, **overrides):
        """`prefect deployment run`; returns the flow run's id."""
        parameters = {"name": name, "runs": str(self.runs), "overrides": SMALL | overrides}
        output = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", "deployment", "run"]
            + ["blockqnn/search", "--params", json.dumps(parameters)],
            cwd=CHECKOUT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return output.partition("UUID: ")[2].split()[0]

    def state(self, flow_run):
        with urllib.request.urlopen(f"{self.api}/flow_runs/{flow_run}", timeout=30) as response:
            return json.load(response)["state"]["type"]

    def wait_for_state(self, flow_run, *wanted):
        deadline = time.monotonic() + PATIENCE
        while (state := self.state(flow_run)) not in wanted and time.monotonic() < deadline:
            time.sleep(0.2)
        return state

    def experiments(self):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.mlflow_port}/api/2.0/mlflow/experiments/search",
            b'{"max_results": 10}',
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return {found["name"] for found in json.load(response)["experiments"]}


def all_end(pids, seconds=30):
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.fixture
def served(tmp_path):
    """A serve not started yet, and killed if the test leaves it."""
    served = Served(tmp_path)
    yield served
    if served.process.poll() is None:
        served.end(signal.SIGKILL)


@pytest.mark.timeout(4 * PATIENCE)
def test_it_serves_survives_kills_and_leaves_nothing(served):
    said = served.start()
    assert f"http://127.0.0.1:{served.mlflow_port}" in said
    assert f"PREFECT_API_URL={served.api} prefect deployment run blockqnn/search" in said

    run = served.run_deployment("short")
    assert served.wait_for_state(run, "COMPLETED", "FAILED", "CRASHED") == "COMPLETED"
    assert (served.runs / "short" / "journal.jsonl").exists()
    assert "blockqnn/short" in served.experiments()

    again = subprocess.run(
        [sys.executable, "-m", "flows.cli", *served.arguments()],
        cwd=CHECKOUT,
        env=served.environment,
        capture_output=True,
        text=True,
    )
    assert again.returncode == 1
    assert f"port {served.prefect_port}" in again.stderr
    assert "Traceback" not in again.stderr

    long = served.run_deployment("long", schedule=[[1.0, 5000]], batch=50)
    journal = served.runs / "long" / "journal.jsonl"
    assert served.wait_for_state(long, "RUNNING", "FAILED", "CRASHED") == "RUNNING"
    while not journal.exists() and served.state(long) == "RUNNING":
        time.sleep(0.2)
    served.end(signal.SIGKILL)

    served.start()
    assert served.state(long) == "CRASHED"
    assert served.end(signal.SIGINT) == 0


def test_a_host_that_others_can_reach_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(CHECKOUT)
    with pytest.raises(ServeError, match=r"0\.0\.0\.0.*password.*127\.0\.0\.1"):
        serve(tmp_path / "runs", "0.0.0.0")
    assert not (tmp_path / "runs").exists()


def test_outside_the_checkout_it_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ServeError, match=r"no prefect\.yaml.*checkout"):
        serve(tmp_path / "runs")
