"""A search with both databases, MLflow's and Prefect's, in a PostgreSQL of this machine."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tiny_search import TINY

from blockqnn.search.search import read_search

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

CHECKOUT = Path(__file__).parents[2]
PASSWORD = "tr0ub4dor and 3"


def program(name):
    """Where a program of PostgreSQL is, newest version first; skips the test without it."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: -float(p.parts[-2]))
    found = shutil.which(name, path=os.pathsep.join([*map(str, places), os.environ["PATH"]]))
    if found is None:
        pytest.skip(f"{name} of PostgreSQL is not installed")
    return found


@pytest.fixture(scope="module")
def postgres():
    """A server that wants a password, on a port of its own: user, place and database for a URL."""
    initdb, server = program("initdb"), program("pg_ctl")
    become = []
    if os.geteuid() == 0:  # PostgreSQL does not run as root
        nobody = shutil.which("setpriv")
        if nobody is None:
            pytest.skip("PostgreSQL does not run as root, and there is no setpriv")
        become = [nobody, "--reuid=65534", "--regid=65534", "--clear-groups"]
    place = Path(tempfile.mkdtemp(prefix="blockqnn-postgres-", dir="/tmp"))  # a short path: sockets
    (place / "password").write_text(PASSWORD)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    if become:
        for path in (place, place / "password"):
            os.chown(path, 65534, 65534)

    def call(*command):
        done = subprocess.run([*become, *command], cwd=place, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    data = ["--pgdata", str(place / "data")]
    owner = ["--username=night", "--auth=scram-sha-256", f"--pwfile={place / 'password'}"]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={place}"
    try:
        call(initdb, *data, *owner, "--encoding=UTF8", "--no-sync")
        call(server, *data, "--wait", "--log", str(place / "log"), "--options", options, "start")
        try:
            yield lambda database: f"night:{PASSWORD}@127.0.0.1:{port}/{database}".replace(
                " ", "%20"
            )
        finally:
            call(server, *data, "--mode=immediate", "stop")
    finally:
        shutil.rmtree(place)


def query(address, text):
    import psycopg2

    with closing(psycopg2.connect(f"postgresql://{address}")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(text)
            return cursor.fetchall() if cursor.description else None


def test_a_search_with_both_databases_on_postgresql(postgres, tmp_path, monkeypatch):
    for database in "mlflow", "prefect":
        query(postgres("postgres"), f"create database {database}")
    tree = {**TINY, "schedule": [[1.0, 2]], "recipe": {**TINY["recipe"], "epochs": 1}}
    tree |= {"tracking": True}
    (tmp_path / "params.yaml").write_text(json.dumps({"search": tree}))  # JSON is YAML
    tracking = f"postgresql+psycopg2://{postgres('mlflow')}"
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "search", "--name", "tiny", "--profile", "none"]
        + ["--params", "params.yaml", "--runs", "runs"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(CHECKOUT),
            "PREFECT_HOME": str(tmp_path / "home"),
            "PREFECT_API_URL": "",
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{postgres('prefect')}",
            "MLFLOW_TRACKING_URI": tracking,
        },
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert "not up to date" not in done.stderr
    assert PASSWORD not in done.stdout + done.stderr

    history = read_search(tmp_path / "runs" / "tiny")
    assert history.finished
    expected = {
        str(r.candidate.number): r.outcome.accuracy for r in history.results if r.same_as is None
    }
    client = MlflowClient(tracking_uri=tracking)
    experiment = client.get_experiment_by_name("blockqnn/tiny")
    children = client.search_runs(
        [experiment.experiment_id], "tags.number like '%'", max_results=100
    )
    found = {run.data.tags["number"]: run.data.metrics.get("accuracy") for run in children}
    assert found == expected
    states = query(postgres("prefect"), "select name, state_type from flow_run")
    assert states == [("search-tiny", "COMPLETED")]
    tasks = query(postgres("prefect"), "select count(*) from task_run")
    assert tasks[0][0] >= len(expected)
    assert not list(tmp_path.rglob("*.db"))
