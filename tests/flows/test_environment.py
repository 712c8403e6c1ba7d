"""Which Prefect API is used, and that a temporary one leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from blockqnn.storage import DirectoryLock
from blockqnn.workers import leash
from flows.runs import runs_directory
from flows.servers import prefect_api as environment
from flows.servers.prefect_api import PrefectError, choose_prefect_api, is_prefect, quiet

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A directory of its own, and no wish in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PREFECT_API_URL", "")


def test_a_wish_that_nobody_answers_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(PrefectError, match=r"127\.0\.0\.1:9/api.*blockqnn serve.*unset"):
        choose_prefect_api(Path("runs"))


def test_a_closed_temporary_server_is_not_the_wish_of_what_comes_after():
    for _ in range(2):  # what ends in this process can begin in it again
        api = choose_prefect_api(Path("runs"))
        assert os.environ["PREFECT_API_URL"] == api.url
        api.close()
        assert not os.environ.get("PREFECT_API_URL")


def test_without_a_wish_a_temporary_server_runs_and_dies_with_a_killed_process(tmp_path):
    program = """
import time
from pathlib import Path
from flows.servers.prefect_api import choose_prefect_api, quiet
quiet()
api = choose_prefect_api(Path("runs"))
api.wait()
print(api.temporary, api.url, flush=True)
time.sleep(600)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    temporary, url = process.stdout.readline().split()
    process.stdout.close()
    assert temporary == "True"
    assert is_prefect(url)
    servers = leash.descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in servers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert servers
    assert not any(Path(f"/proc/{pid}").exists() for pid in servers)
    assert not is_prefect(url)


def test_quiet_keeps_what_the_user_set(monkeypatch):
    for name in ("DO_NOT_TRACK", "PREFECT_LOGGING_LEVEL", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "intra.example")
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    quiet()
    assert os.environ["DO_NOT_TRACK"] == "0"
    assert os.environ["NO_PROXY"] == "intra.example,127.0.0.1,localhost"
    assert os.environ["PREFECT_LOGGING_LEVEL"] == "WARNING"
    assert "PREFECT_LOGGING_LEVEL" not in environment.server_environment()


def test_a_flow_run_of_a_worker_keeps_its_log(monkeypatch):
    monkeypatch.delenv("PREFECT_LOGGING_LEVEL", raising=False)
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "1")
    quiet()
    assert "PREFECT_LOGGING_LEVEL" not in os.environ


class Health(BaseHTTPRequestHandler):
    """A Prefect server as far as its health goes."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"true")

    def log_message(self, *arguments):
        """Nothing to say."""


@pytest.fixture
def stranger():
    """The address of a Prefect server that somebody else runs."""
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()
        thread.join()


def test_only_the_server_of_the_same_runs_is_used(stranger, tmp_path, monkeypatch):
    (tmp_path / "prefect.toml").write_text(f'[api]\nurl = "{stranger}"\n')  # what answers there
    place = tmp_path / "runs" / "serve"
    place.mkdir(parents=True)
    (place / "prefect.json").write_text(json.dumps({"url": stranger}))
    api = choose_prefect_api(tmp_path / "runs")  # `blockqnn serve` was killed: its lock is gone
    assert api.temporary
    api.close()
    serves = DirectoryLock(place)
    assert choose_prefect_api(tmp_path / "runs").url == stranger
    monkeypatch.delenv("PREFECT_API_URL")
    assert choose_prefect_api(tmp_path / "others").temporary
    serves.release()


def test_a_server_that_is_gone_when_the_flow_starts_is_done_without(tmp_path):
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        url = f"http://127.0.0.1:{server.server_port}/api"
        command = [sys.executable, "-m", "flows.cli", "search", "--runs", str(tmp_path)]
        command += ["--params", str(CHECKOUT / "params.yaml"), "--set", "tracking=false"]
        command += ["schedule=[[1.0,1]]", "batch=2", "recipe.epochs=1", "data.images=300"]
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PREFECT_API_URL": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        server.handle_request()  # it answers once; closed, it refuses
    shown, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert f"blockqnn: the Prefect server at {url} is gone: going on without it" in said
    assert "Traceback" not in said
    assert "candidates 2/2" in shown


@pytest.mark.parametrize("copy", ["copy", "standalone/copy"])
def test_runs_of_a_copy_that_dvc_made_stay_with_the_checkout(tmp_path, monkeypatch, copy):
    monkeypatch.delenv("BLOCKQNN_RUNS", raising=False)
    place = tmp_path.joinpath(".dvc", "tmp", "exps", copy)  # where DVC makes them
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    assert runs_directory() == tmp_path / "runs"
    monkeypatch.chdir(tmp_path)
    assert runs_directory() == Path("runs")
    monkeypatch.setenv("BLOCKQNN_RUNS", "elsewhere")
    assert runs_directory() == Path("elsewhere")
