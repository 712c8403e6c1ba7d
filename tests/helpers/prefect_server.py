"""A Prefect server that many commands use: each starting its own takes them half as long again."""

import socket
import sys
from contextlib import contextmanager

from blockqnn.workers import leash
from flows.servers.prefect_api import is_prefect, server_environment, wait_until


@contextmanager
def prefect_server(home):
    """The address of its API; it keeps its database and its log in the directory `home`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    environment = server_environment(
        PREFECT_UI_ENABLED="0",
        PREFECT_HOME=str(home / "prefect"),
        PREFECT__SERVER_EPHEMERAL="1",  # no services that tests do without: idle, it costs nothing
    )
    with (home / "server.log").open("wb") as log:
        server = leash.start(command, env=environment, log=log)
    url = f"http://127.0.0.1:{port}/api"
    try:
        assert wait_until(lambda: is_prefect(url), alive=lambda: server.poll() is None)
        yield url
    finally:
        leash.let_go(server)
