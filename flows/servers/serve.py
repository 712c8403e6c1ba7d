"""`blockqnn serve`: the Prefect server, one worker and the MLflow UI, together and only together.

Each runs under a guard (`blockqnn.workers.leash`), so that they end when this process does, however
it ends.
"""

import contextlib
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from blockqnn.errors import UserError
from blockqnn.storage import DirectoryLock, write_json
from blockqnn.workers import leash
from flows.runs import RUNS_VARIABLE
from flows.servers import automations, passwords
from flows.servers.prefect_api import (
    SERVED,
    SERVER_TIMEOUT,
    is_prefect,
    prefect_call,
    responds,
    server_environment,
    wait_until,
)
from flows.tracking import store
from flows.tracking.records import experiment_id, page_of

POOL = "blockqnn"
DEPLOYMENTS = Path("prefect.yaml")


PAGES = 3
"""Runs whose pages in MLflow are named."""


class ServeError(UserError):
    """The servers cannot start or go on; the message names the cause and the remedy."""


def serve(
    runs: Path,
    host: str = "127.0.0.1",
    prefect_port: int = 4200,
    mlflow_port: int = 5000,
    *,
    insecure: bool = False,
) -> int:
    """Run the servers until Ctrl-C or SIGTERM (returns 0) or until one of them ends (returns 1).

    Writes `runs`/serve/*.log. An MLflow server named by MLFLOW_TRACKING_URI is used, not started.
    The servers ask for the passwords of `flows.servers.passwords`, if they are set; where others
    can reach `host` they must be, unless `insecure`. Raises UserError, before anything starts, when
    they are not or a port is in use, and when a server does not start. Call it from the main
    thread, in the checkout.
    """
    tracking = store.tracking_uri(runs)
    own_mlflow = not store.is_server(tracking)
    ports = {"Prefect": prefect_port} | ({"MLflow": mlflow_port} if own_mlflow else {})
    exposed = not _is_loopback(host)
    if exposed and not insecure:
        passwords.check_exposed(host, os.environ, mlflow=own_mlflow)
    settings = passwords.prefect_environment(os.environ)
    _check(host, ports)
    directory = runs / "serve"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServeError(
            f"Cannot write logs in {directory} ({error.strerror}): choose another place for runs."
        ) from None
    if own_mlflow:
        settings |= passwords.mlflow_environment(os.environ, directory)
        settings["MLFLOW_BACKEND_STORE_URI"] = tracking  # no argument: it may hold a password
    if exposed:
        reachable = passwords.exposed_environment(host, prefect_port)
        settings |= {name: value for name, value in reachable.items() if name not in os.environ}
    near = passwords.in_url({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host))
    servers = _Servers(directory, f"http://{near}:{prefect_port}/api", settings)
    lock = DirectoryLock(directory, wait=2.0)  # a command that looks who serves has it for moments
    with _stop_signals():
        try:
            mlflow_url = tracking
            with contextlib.ExitStack() as stack:
                if own_mlflow:
                    # The first start makes the database; so would a search that starts just now.
                    stack.enter_context(store.database_lock(runs, SERVER_TIMEOUT))
                    mlflow_url = f"http://{near}:{mlflow_port}"
                    asks = "MLFLOW_AUTH_ADMIN_USERNAME" in settings
                    servers.start("mlflow", _mlflow_command(runs, host, mlflow_port, asks))
                prefect = ["server", "start", "--host", host, "--port", str(prefect_port)]
                servers.start("prefect", _prefect(*prefect, "--analytics-off"))
                if own_mlflow:
                    servers.wait_for("mlflow", lambda: responds(f"{mlflow_url}/health"))
            servers.wait_for("prefect", lambda: is_prefect(servers.url))
            write_json({"url": servers.url}, directory / SERVED)
            servers.deploy()
            _announce(servers.url, store.without_password(mlflow_url), directory, prefect_port)
            if own_mlflow:
                _announce_pages(runs, mlflow_url)
            return servers.watch()
        except KeyboardInterrupt:
            print("Stopping.", flush=True)
            return 0
        finally:
            for number in _STOP_SIGNALS:  # a second Ctrl-C must not leave anything behind
                signal.signal(number, signal.SIG_IGN)
            (directory / SERVED).unlink(missing_ok=True)
            servers.stop()
            lock.release()


class _Servers:
    """The processes that `serve` starts, by name; each has a guard and a log of its own."""

    def __init__(self, logs: Path, url: str, settings: Mapping[str, str]) -> None:
        self.url = url
        self._logs = logs
        self._guards: dict[str, subprocess.Popen[bytes]] = {}
        self._begun = datetime.now(UTC)
        # Not Prefect's own database in the home directory: another version may have been there.
        database = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
        own = f"sqlite+aiosqlite:///{(logs / 'prefect.db').resolve()}"
        self._environment = server_environment(
            **{database: os.environ.get(database, own)},
            **settings,
            PREFECT_API_URL=url,
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY=str(automations.HEARTBEAT),
            **{RUNS_VARIABLE: str(logs.parent.resolve())},
            PREFECT_WORKER_QUERY_SECONDS="2",
            PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT="false",
            MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
            PYTHONUNBUFFERED="1",
        )

    def start(self, name: str, command: list[str]) -> None:
        with (self._logs / f"{name}.log").open("wb") as log:
            self._guards[name] = leash.start(command, env=self._environment, log=log)

    def wait_for(self, name: str, ready: Callable[[], bool]) -> None:
        if not wait_until(ready, alive=lambda: self._guards[name].poll() is None):
            raise ServeError(self._failure(f"{name} did not start", name))

    def deploy(self) -> None:
        """Create the work pool, start its worker and apply prefect.yaml."""
        self._run("pool", ["work-pool", "create", POOL, "--type", "process", "--overwrite"])
        try:
            automations.watch_over(self.url, POOL)
            automations.mark_crashed(self.url, POOL)  # those go on, too
        except OSError as error:
            raise ServeError(self._failure(f"prefect refuses ({error})", "prefect")) from None
        self.start("worker", _prefect("worker", "start", "--pool", POOL, "--name", "serve"))
        self._run("deploy", ["deploy", "--all", "--prefect-file", str(DEPLOYMENTS)])
        self.wait_for("worker", self._worker_is_online)

    def watch(self) -> int:
        """Wait until one of the servers ends; returns 1, the exit status."""
        looked = time.monotonic()
        while True:
            if time.monotonic() - looked > automations.PAUSE:
                looked = time.monotonic()
                with contextlib.suppress(OSError):  # a minute later it is tried again
                    automations.restart_missed(self.url, POOL, self._begun)
            for name, process in self._guards.items():
                if process.poll() is not None:
                    print(self._failure(f"{name} has ended", name), file=sys.stderr, flush=True)
                    return 1
            time.sleep(0.5)

    def stop(self) -> None:
        """Stop everything; the worker first, so that its flow runs can still report their end."""
        with contextlib.suppress(OSError):  # the server may be what has ended
            automations.remove(self.url, POOL)  # what is stopped stays stopped
        if (worker := self._guards.pop("worker", None)) is not None:
            leash.let_go(worker)
            with contextlib.suppress(OSError):
                automations.mark_crashed(self.url, POOL)
        with ThreadPoolExecutor() as threads:
            list(threads.map(leash.let_go, self._guards.values()))
        self._guards.clear()

    def _run(self, name: str, arguments: list[str]) -> None:
        """One Prefect command to its end."""
        self.start(name, _prefect(*arguments))
        process = self._guards[name]
        try:
            process.wait(SERVER_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise ServeError(self._failure(f"`prefect {arguments[0]}` hangs", name)) from None
        if process.returncode:
            raise ServeError(self._failure(f"`prefect {arguments[0]}` failed", name))
        leash.let_go(self._guards.pop(name))

    def _failure(self, what: str, name: str) -> str:
        path = self._logs / f"{name}.log"
        lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
        last = f": {lines[-1].strip()}" if lines else ""
        return f"{what[0].upper()}{what[1:]}, see {path}{last}"

    def _worker_is_online(self) -> bool:
        workers = prefect_call(f"{self.url}/work_pools/{POOL}/workers/filter", {})
        return any(worker["status"] == "ONLINE" for worker in workers)


def _check(host: str, ports: Mapping[str, int]) -> None:
    """Refuse what cannot work, before anything starts."""
    if not DEPLOYMENTS.is_file():
        raise ServeError(
            f"There is no {DEPLOYMENTS} in {Path.cwd()}: run `blockqnn serve` in the checkout."
        )
    if len(set(ports.values())) < len(ports):
        raise ServeError("Prefect and MLflow cannot share a port: choose two.")
    for name, port in ports.items():
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except (OSError, OverflowError) as error:
                reason = error.strerror if isinstance(error, OSError) else "no such port"
                raise ServeError(
                    f"{name} cannot have port {port} ({reason}): stop what uses it, perhaps "
                    f"another `blockqnn serve`, or choose another with --{name.lower()}-port."
                ) from None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _prefect(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "prefect", "--no-prompt", *arguments]


def _mlflow_command(runs: Path, host: str, port: int, asks: bool) -> list[str]:
    # More than one worker makes it slower for one user, and every one takes 200 MB.
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", host, "--port", str(port)]
    if asks:
        command += ["--app-name", "basic-auth"]
    return [*command, "--artifacts-destination", store.artifacts_uri(runs)]


def _announce(url: str, mlflow_url: str, logs: Path, prefect_port: int) -> None:
    export = "" if prefect_port == 4200 else f"PREFECT_API_URL={url} "
    print(
        f"Prefect  {url.removesuffix('/api')}\n"
        f"MLflow   {mlflow_url}\n"
        f"Logs     {logs}/*.log\n\n"
        "Try in another terminal:\n"
        f"  {export}prefect deployment run blockqnn/search --param name=demo\n"
        "  blockqnn status demo\n\n"
        "Ctrl-C stops everything; a search goes on when it is started again.",
        flush=True,
    )


def _announce_pages(runs: Path, mlflow_url: str) -> None:
    """Print the pages of the newest runs, whose best comes first there."""
    journals = [*runs.glob("*/journal.jsonl"), *runs.glob("*/trainings")]
    newest = sorted(journals, key=lambda path: -path.stat().st_mtime)
    pages = {path.parent.name: experiment_id(path.parent.name, runs) for path in newest}
    known = {name: number for name, number in pages.items() if number is not None}
    for name, number in [*known.items()][:PAGES]:
        print(f"\n{name}, the best first:\n  {page_of(number, mlflow_url)}", flush=True)


_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def _stop_signals() -> Iterator[None]:
    """Let every signal that stops `serve` raise KeyboardInterrupt; afterwards all is as before."""
    interrupt = signal.default_int_handler
    before = {number: signal.signal(number, interrupt) for number in _STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
