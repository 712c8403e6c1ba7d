"""Who may use the servers that `blockqnn serve` starts: a user and a password for each.

The variables are those that Prefect's and MLflow's own clients read, so that one set of exports
does for the servers, the worker and every command. They pass through the environment alone: never
through an argument, which every user of the machine can see, and never into a file.
"""

import importlib.util
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

from blockqnn.errors import SettingsError, UserError

PREFECT = "PREFECT_API_AUTH_STRING"
"""Environment variable with the user and the password of Prefect's server, `name:password`."""

USER = "MLFLOW_TRACKING_USERNAME"
"""Environment variable with the user of MLflow's server."""

PASSWORD = "MLFLOW_TRACKING_PASSWORD"
"""Environment variable with the password of MLflow's server."""

SHORTEST = 12
"""Characters that MLflow wants in a password at least."""

_SERVER = "PREFECT_SERVER_API_AUTH_STRING"
_OWN_CONFIG = "MLFLOW_AUTH_CONFIG_PATH"

_CONFIG = """\
[mlflow]
default_permission = READ
database_uri = sqlite:///{users}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


def check_exposed(host: str, environ: Mapping[str, str], *, mlflow: bool) -> None:
    """Raise `SettingsError` unless all servers that others could reach at `host` ask for a
    password; `mlflow` says whether one is MLflow's.
    """
    wanted = [PREFECT] if not prefect_password(environ) else []
    wanted += [name for name in (USER, PASSWORD) if mlflow and not environ.get(name)]
    if wanted:
        raise SettingsError(
            f"--host is {host}, where others can reach the servers, which ask for no password: "
            f"export {' and '.join(wanted)} (docs/operations.md), use 127.0.0.1 with `ssh -L` from "
            "elsewhere, or give --insecure where everybody may run code as you"
        )


def prefect_password(environ: Mapping[str, str]) -> str | None:
    """The user and password of Prefect's server, `name:password`; None without authentication."""
    return environ.get(_SERVER) or environ.get(PREFECT) or None


def prefect_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables for Prefect's server and all its clients; none without authentication.

    Raises `SettingsError` for a password that no client could send.
    """
    password = prefect_password(environ)
    if password is None:
        return {}
    if not all(password.partition(":")) or (environ.get(PREFECT) or password) != password:
        raise SettingsError(
            f"{PREFECT} is not of the form name:password, or is not {_SERVER}: export one of them "
            "alone"
        )
    return {_SERVER: password, PREFECT: password}


def mlflow_environment(environ: Mapping[str, str], directory: Path) -> dict[str, str]:
    """Variables of an MLflow server that asks for a password; none without authentication.

    Writes its configuration, without the password, into `directory`, unless the user has one. The
    only user is the environment's: the file of users is made anew, so that a new password holds.
    Raises `SettingsError` for a short password, UserError when MLflow lacks a package.
    """
    user, password = environ.get(USER), environ.get(PASSWORD)
    if not user or not password:
        return {}
    if len(password) < SHORTEST:
        raise SettingsError(f"{PASSWORD} is too short for MLflow: give {SHORTEST} characters")
    if importlib.util.find_spec("flask_wtf") is None:
        raise UserError(
            f"{USER} is set, but MLflow needs a package to ask for it: pip install 'mlflow[auth]', "
            f"or unset {USER}"
        )
    settings = {
        "MLFLOW_AUTH_ADMIN_USERNAME": user,
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": environ.get("MLFLOW_FLASK_SERVER_SECRET_KEY")
        or secrets.token_hex(32),
    }
    if not environ.get(_OWN_CONFIG):
        users = (directory / "mlflow-users.db").resolve()
        users.unlink(missing_ok=True)
        users.touch(mode=0o600)  # hashes of passwords are its owner's alone
        config = directory / "mlflow-auth.ini"
        config.write_text(_CONFIG.format(users=str(users).replace("%", "%%")), encoding="utf-8")
        settings[_OWN_CONFIG] = str(config.resolve())
    return settings


def exposed_environment(host: str, prefect_port: int) -> dict[str, str]:
    """Variables that let browsers on other machines in: where Prefect's API is for them, and the
    names by which MLflow may be called (it refuses others, against DNS rebinding).
    """
    own, full = socket.gethostname(), socket.getfqdn()
    name = host
    if host in ("0.0.0.0", "::"):
        name = own if full.startswith("localhost") else full
    names = dict.fromkeys([name, host, own, "localhost", "127.0.0.1"])
    private = ["10.*", "192.168.*", *(f"172.{second}.*" for second in range(16, 32))]
    allowed = [*names, *(f"{each}:*" for each in names), *private]
    return {
        "PREFECT_UI_API_URL": f"http://{in_url(name)}:{prefect_port}/api",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(allowed),
    }


def in_url(host: str) -> str:
    """A host as URLs spell it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host
