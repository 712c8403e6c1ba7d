"""Passwords: what is refused before anything starts, and that none is without_password or kept."""

import pytest

from blockqnn.errors import SettingsError
from flows.servers.passwords import (
    check_exposed,
    exposed_environment,
    mlflow_environment,
    prefect_environment,
)
from flows.tracking.store import artifacts_uri, without_password

SECRET = "correct horse battery staple"


@pytest.mark.parametrize(
    "environ",
    [
        {"PREFECT_API_AUTH_STRING": SECRET},
        {"PREFECT_API_AUTH_STRING": f":{SECRET}"},
        {"PREFECT_SERVER_API_AUTH_STRING": "night:"},
        {"PREFECT_SERVER_API_AUTH_STRING": f"a:{SECRET}", "PREFECT_API_AUTH_STRING": "a:b"},
    ],
)
def test_a_password_that_no_client_could_send_is_refused(environ):
    with pytest.raises(SettingsError, match="PREFECT_API_AUTH_STRING is not of the form") as error:
        prefect_environment(environ)
    assert SECRET not in str(error.value)


def test_server_and_clients_share_prefects_password():
    either = "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"
    for name in either:
        assert prefect_environment({name: "night:a:b"}) == dict.fromkeys(either, "night:a:b")
    assert prefect_environment({}) == {}


def test_mlflow_gets_its_password_by_the_environment_alone(tmp_path):
    environ = {"MLFLOW_TRACKING_USERNAME": "night", "MLFLOW_TRACKING_PASSWORD": SECRET}
    users = tmp_path / "mlflow-users.db"
    users.write_bytes(b"of another password")
    settings = mlflow_environment(environ, tmp_path)
    assert settings["MLFLOW_AUTH_ADMIN_PASSWORD"] == SECRET
    assert users.read_bytes() == b""
    assert users.stat().st_mode & 0o077 == 0
    assert SECRET not in (tmp_path / "mlflow-auth.ini").read_text()
    assert mlflow_environment({"MLFLOW_TRACKING_USERNAME": "night"}, tmp_path) == {}
    with pytest.raises(SettingsError, match="PASSWORD is too short for MLflow: give 12") as error:
        mlflow_environment({**environ, "MLFLOW_TRACKING_PASSWORD": "hunter2"}, tmp_path)
    assert "hunter2" not in str(error.value)


def test_where_others_can_reach_them_every_server_needs_one():
    prefect = {"PREFECT_API_AUTH_STRING": f"night:{SECRET}"}
    with pytest.raises(SettingsError, match="export MLFLOW_TRACKING_USERNAME and MLFLOW_TR"):
        check_exposed("192.0.2.1", prefect, mlflow=True)
    check_exposed("192.0.2.1", prefect, mlflow=False)
    found = exposed_environment("192.0.2.1", 4200)
    assert found["PREFECT_UI_API_URL"] == "http://192.0.2.1:4200/api"
    anywhere = exposed_environment("0.0.0.0", 4200)["PREFECT_UI_API_URL"]
    assert "0.0.0.0" not in anywhere
    assert "localhost" not in anywhere
    assert "192.0.2.1:*" in found["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (
            "postgresql+psycopg2://me:a:b%40@host:5432/db",
            "postgresql+psycopg2://me:***@host:5432/db",
        ),
        ("https://me:x@y@host/a:b@c", "https://me:***@host/a:b@c"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////tmp/a:b@c/mlflow.db", "sqlite:////tmp/a:b@c/mlflow.db"),
    ],
)
def test_no_password_is_shown(uri, expected):
    assert without_password(uri) == expected


def test_artifacts_go_where_mlflows_own_variable_says(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_ARTIFACTS_DESTINATION", raising=False)
    assert artifacts_uri(tmp_path) == f"file://{tmp_path}/mlartifacts"
    monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", "s3://bucket/x/")
    assert artifacts_uri(tmp_path) == "s3://bucket/x"
