"""`blockqnn serve` for real: a deployed search runs, and nothing outlives the command."""

import base64
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest
from tiny_search import journal_of

from blockqnn.errors import SettingsError
from blockqnn.search.search import read_search
from blockqnn.workers import leash
from flows.cli import main
from flows.servers.prefect_api import PrefectError, choose_prefect_api
from flows.servers.serve import ServeError, serve

CHECKOUT = Path(__file__).parents[2]
PATIENCE = 300  # seconds, for a busy machine
SECRET = "correct horse battery staple"
PASSWORDS = {
    "PREFECT_API_AUTH_STRING": f"night:{SECRET}",
    "MLFLOW_TRACKING_USERNAME": "night",
    "MLFLOW_TRACKING_PASSWORD": SECRET,
}
SMALL = {
    "batch": 2,
    "schedule": [[1.0, 1]],
    "space.max_index": 3,
    "data.images": 200,
    "network.filters": [4],
    "recipe.epochs": 1,
    "workers.count": 1,
}
ENDLESS = {"space.max_index": 12, "schedule": [[1.0, 5000]], "batch": 50}
"""So many distinct blocks that they outlast any test: repeats are settled without training."""


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
            **PASSWORDS,
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
        processes = leash.descendants(self.process.pid)
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
        return get(f"{self.api}/flow_runs/{flow_run}")["state"]["type"]

    def wait_for_state(self, flow_run, *wanted):
        deadline = time.monotonic() + PATIENCE
        while (state := self.state(flow_run)) not in wanted and time.monotonic() < deadline:
            time.sleep(0.2)
        return state

    def wait_for_outcomes(self, name, count):
        """Return once the journal of a search has so many outcomes."""
        deadline = time.monotonic() + PATIENCE
        while not (self.runs / name / "journal.jsonl").exists() or (
            sum("outcome" in record for record in journal_of(self.runs / name)) < count
        ):
            assert time.monotonic() < deadline, f"{name} has no {count} outcomes"
            time.sleep(0.1)

    def holder(self, name):
        """Process id of the flow run that has a search."""
        return json.loads((self.runs / name / "lock").read_text())["pid"]

    def ends(self):
        """The state of every flow run, and the number of automations, from the disk."""
        with closing(sqlite3.connect(self.runs / "serve" / "prefect.db")) as database:
            runs = database.execute("select id, state_type from flow_run").fetchall()
            automations = database.execute("select count(*) from automation").fetchone()[0]
        return {str(UUID(id)): state for id, state in runs}, automations


def get(url, secret=SECRET):
    """What a server answers to the user night."""
    request = urllib.request.Request(url)
    if secret is not None:
        encoded = base64.b64encode(f"night:{secret}".encode()).decode()
        request.add_header("Authorization", f"Basic {encoded}")
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def refused(url, secret):
    """Whether a server lets nobody in with this password."""
    with pytest.raises(urllib.error.HTTPError) as error:
        get(url, secret)
    error.value.close()
    return error.value.code == 401


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


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
def test_it_serves_survives_kills_and_leaves_nothing(served, monkeypatch, capsys):
    said = served.start()
    mlflow = f"http://127.0.0.1:{served.mlflow_port}"
    assert mlflow in said
    assert f"PREFECT_API_URL={served.api} prefect deployment run blockqnn/search" in said

    # Three flow runs: one whose process is killed, one cancelled, one with a user's error.
    short = served.run_deployment("short", schedule=[[1.0, 20]], batch=4)
    long = served.run_deployment("long", **ENDLESS)
    wrong = served.run_deployment("wrong", colour="blue")
    served.wait_for_outcomes("short", 1)
    os.kill(served.holder("short"), signal.SIGKILL)
    assert served.wait_for_state(short, "CRASHED", "FAILED") == "CRASHED"
    served.wait_for_outcomes("long", 1)
    set_state(f"{served.api}/flow_runs/{long}/set_state", {"type": "CANCELLING"})

    last = served.run_deployment("last", **ENDLESS)

    # Who has no password, or another, is told so.
    experiments = f"{mlflow}/api/2.0/mlflow/experiments/search?max_results=10"
    monkeypatch.setenv("PREFECT_API_URL", served.api)
    for password in None, "another password":
        assert refused(f"{served.api}/flow_runs/{short}", password)
        assert refused(experiments, password)
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", f"night:{password}" if password else "")
        with pytest.raises(PrefectError, match=r"wants a.* password: export PREFECT_API_AUTH"):
            choose_prefect_api(served.runs)
    for pid in leash.descendants(served.process.pid):
        assert SECRET not in command_line(pid)

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

    # The one that crashed is started again, and ends.
    assert served.wait_for_state(short, "COMPLETED", "FAILED") == "COMPLETED"
    assert read_search(served.runs / "short").finished
    assert "blockqnn/short" in {found["name"] for found in get(experiments)["experiments"]}

    # MLflow's server, by its URL, takes what has its password.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow)
    for name in "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD":
        monkeypatch.setenv(name, PASSWORDS[name])
    track = ["track", "--name", "short", "--runs", str(served.runs)]
    assert main(track) == 0
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another password")
    assert main(track) == 1
    assert "it wants the MLFLOW_TRACKING_USERNAME" in capsys.readouterr().err

    # What was under way when everything was killed does not stay so.
    served.wait_for_outcomes("last", 1)
    served.end(signal.SIGKILL)
    served.start()
    assert served.end(signal.SIGINT) == 0
    runs, automations = served.ends()
    assert runs.pop(last) in ("CRASHED", "SCHEDULED")
    assert runs == {short: "COMPLETED", long: "CANCELLED", wrong: "FAILED"}
    assert automations == 0, "what Ctrl-C stopped would be started again"

    for path in served.runs.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path
    assert (served.runs / "serve" / "mlflow-users.db").stat().st_mode & 0o077 == 0


def set_state(url, state):
    encoded = base64.b64encode(PASSWORDS["PREFECT_API_AUTH_STRING"].encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {encoded}"}
    body = json.dumps({"state": state}).encode()
    urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60).close()


def test_a_host_that_others_can_reach_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(CHECKOUT)
    for name in PASSWORDS:
        monkeypatch.delenv(name, raising=False)
    wanted = (
        r"0\.0\.0\.0.*no password: export PREFECT_.*MLFLOW_.*_PASSWORD.*127\.0\.0\.1.*--insecure"
    )
    with pytest.raises(SettingsError, match=wanted):
        serve(tmp_path / "runs", "0.0.0.0")
    assert not (tmp_path / "runs").exists()


def test_outside_the_checkout_it_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ServeError, match=r"no prefect\.yaml.*checkout"):
        serve(tmp_path / "runs")
