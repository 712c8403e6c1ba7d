"""What has to be settled before Prefect and MLflow are imported: silence, and which Prefect API.

Both read the environment once, at import, so every entry point calls `quiet` first. Nothing heavy
is imported here.
"""

import atexit
import base64
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from blockqnn.errors import UserError
from blockqnn.storage import is_held, read_json
from blockqnn.workers import leash
from flows.servers.passwords import PREFECT, prefect_password

SERVED = "prefect.json"
"""File in `serve` below the runs with the address of the Prefect API of `blockqnn serve`."""

SERVER_TIMEOUT = 300.0
"""Seconds a server may take to start: a first start on a busy machine builds its database."""

LOOK = 5.0
"""Seconds between two looks at whether a server is still there."""

MISSED = 3
"""Looks in a row that find nobody before a server is said to be gone: a busy one may miss some."""

log = logging.getLogger(__name__)

_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # 7 try a dead server for minutes
    "PREFECT_CLIENT_MAX_RETRIES": "3",  # as 5 do, at the end of a flow
    "GIT_PYTHON_REFRESH": "quiet",  # MLflow's git library complains where git is not installed
}
_LOG_LEVEL = "PREFECT_LOGGING_LEVEL"
_COMMAND_LINE_LEVEL = "WARNING"


class PrefectError(UserError, RuntimeError):
    """The Prefect API that was asked for cannot be used; the message names the remedy."""


def quiet() -> None:
    """Turn telemetry off, and Prefect's narration on the command line; what the user set stays.

    A flow run started by a Prefect worker keeps its log level: its log is read in the Prefect UI.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if "PREFECT__FLOW_RUN_ID" not in os.environ:
        os.environ.setdefault(_LOG_LEVEL, _COMMAND_LINE_LEVEL)
    for name in ("no_proxy", "NO_PROXY"):  # a company's proxy cannot reach our own servers
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        os.environ[name] = ",".join(dict.fromkeys([*hosts, "127.0.0.1", "localhost"]))


def server_environment(**settings: str) -> dict[str, str]:
    """This process's environment for a server or worker that it starts, where Prefect may narrate;
    `settings` are added.
    """
    environment = {**os.environ, **settings}
    if environment.get(_LOG_LEVEL) == _COMMAND_LINE_LEVEL:
        del environment[_LOG_LEVEL]
    return environment


class PrefectAPI:
    """The Prefect API of this process: a server that runs already, or a temporary one of its own.

    `url` is its address; `temporary` says which of the two it is. A temporary server starts in the
    background; `wait` before the first flow. It ends with this process, even a killed one.
    """

    def __init__(self, url: str, server: subprocess.Popen[bytes] | None = None) -> None:
        self.url = url
        self._server = server
        if server is not None:
            atexit.register(self.close)

    @property
    def temporary(self) -> bool:
        """Whether this process runs the server itself."""
        return self._server is not None

    def wait(self) -> None:
        """Return once the API answers; PrefectError when a temporary server does not start."""
        if (server := self._server) is None:
            return
        if not wait_until(lambda: is_prefect(self.url), alive=lambda: server.poll() is None):
            self.close()
            raise PrefectError(
                "Prefect's temporary server did not start; "
                "run `prefect server start` in another terminal to see why."
            )

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within the block, say once when a server that is not this process's own is gone."""
        over = threading.Event()

        def watch() -> None:
            missed = 0
            while missed < MISSED and not over.wait(LOOK):
                missed = 0 if is_prefect(self.url) else missed + 1
            if missed == MISSED:
                log.warning("the Prefect server at %s does not answer: the work goes on", self.url)

        if not self.temporary:
            threading.Thread(target=watch, daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def close(self) -> None:
        """Stop a temporary server and forget its address; does nothing to one that ran already."""
        if self._server is not None:
            leash.let_go(self._server)
            if os.environ.get("PREFECT_API_URL") == self.url:
                del os.environ["PREFECT_API_URL"]  # nobody answers there any more


def choose_prefect_api(runs: Path) -> PrefectAPI:
    """Decide which Prefect API this process uses and put its address into the environment.

    1. PREFECT_API_URL: the user's wish; PrefectError when nothing answers there.
    2. The server that a `blockqnn serve` of these `runs` has started, while that runs.
    3. Otherwise a temporary server that nobody else sees.

    A server that wants a password gets PREFECT_API_AUTH_STRING; PrefectError when it takes another.
    Must run before Prefect is imported.
    """
    if password := prefect_password(os.environ):
        os.environ.setdefault(PREFECT, password)
    if url := os.environ.get("PREFECT_API_URL"):
        if not responds(f"{url.rstrip('/')}/health"):
            raise PrefectError(
                f"No Prefect server answers at PREFECT_API_URL={url}: start it (`blockqnn serve`), "
                "or unset PREFECT_API_URL to run without a server."
            )
    elif not ((url := served_url(runs)) and is_prefect(url)):
        return _temporary_server()
    _check_password(url)
    os.environ["PREFECT_API_URL"] = url
    return PrefectAPI(url)


def is_prefect(url: str) -> bool:
    """Whether a healthy Prefect API answers at `url` within two seconds."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=2) as response:
            return json.load(response) is True
    except (OSError, ValueError):
        return False


def responds(url: str) -> bool:
    """Whether anything speaks HTTP at `url` within ten seconds, be it a refusal."""
    try:
        urllib.request.urlopen(url, timeout=10).close()
    except urllib.error.HTTPError as error:
        error.close()
    except (OSError, ValueError):
        return False
    return True


def prefect_call(
    url: str, body: Mapping[str, Any] | None = None, method: str = "POST", timeout: float = 60.0
) -> Any:
    """Send `body` to a Prefect API as JSON; returns its answer, None if empty. Raises OSError.

    Sends PREFECT_API_AUTH_STRING, if set. A server whose database is busy is asked again for
    `timeout` seconds.
    """
    headers = {"Content-Type": "application/json"}
    if password := prefect_password(os.environ):
        headers["Authorization"] = f"Basic {base64.b64encode(password.encode()).decode()}"
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, headers, method=method)
    give_up = time.monotonic() + timeout
    while True:
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                answer = response.read()
            return json.loads(answer) if answer else None
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 503 or time.monotonic() > give_up:
                raise
        time.sleep(1)


def wait_until(
    ready: Callable[[], bool], *, alive: Callable[[], bool], timeout: float = SERVER_TIMEOUT
) -> bool:
    """Ask `ready` until it says yes (True), `alive` says no or `timeout` seconds pass (False)."""
    deadline = time.monotonic() + timeout
    while alive() and time.monotonic() < deadline:
        if ready():
            return True
        time.sleep(0.1)
    return False


def _check_password(url: str) -> None:
    """Raise PrefectError when a server refuses this process's password; what else may be wrong,
    Prefect explains.
    """
    try:
        prefect_call(f"{url.rstrip('/')}/admin/version", method="GET", timeout=10)
    except (OSError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == 401:
            given = "another password" if os.environ.get(PREFECT) else "a password"
            raise PrefectError(
                f"The Prefect server at {url} wants {given}: export {PREFECT}=name:password as it "
                "was started with."
            ) from None


def served_url(runs: Path) -> str | None:
    """The Prefect API that `blockqnn serve` of these runs has started; None where none runs.

    Its lock says whether it runs: what answers at the address that one left behind may be anybody.
    """
    directory = runs / "serve"
    try:
        url = read_json(directory / SERVED)["url"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    known = isinstance(url, str) and urlsplit(url).hostname is not None
    return url if known and is_held(directory) else None


def _temporary_server() -> PrefectAPI:
    """Start the server Prefect itself would start for a flow without an API.

    Prefect's own outlives a killed flow for ever and is given up after 20 seconds, which a first
    start on a busy machine exceeds.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ["PREFECT_API_URL"] = url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    environment = server_environment(
        PREFECT_UI_ENABLED="0", PREFECT__SERVER_EPHEMERAL="1", PREFECT__SERVER_FINAL="1"
    )
    return PrefectAPI(url, leash.start(command, env=environment, log=subprocess.DEVNULL))
