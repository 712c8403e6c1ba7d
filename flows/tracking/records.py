"""What MLflow has of a run as a whole: found without MLflow, renamed and deleted with it."""

import shutil
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from flows.tracking.store import ARTIFACTS, is_server, tracking_uri

VIEW = "best"
"""Name of the view of an experiment, in its tags, that its address names: columns, and the best
first."""


class Records:
    """The experiments `blockqnn/<name>` of the runs in a directory.

    Every method raises what MLflow raises when its server or database does not take it.
    """

    def __init__(self, runs: Path) -> None:
        """`runs` holds database and artifacts, unless MLFLOW_TRACKING_URI says otherwise."""
        self.uri = tracking_uri(runs)
        self._runs = runs

    def rename(self, name: str, new: str) -> None:
        """Call a run's experiment, and the run in it that has the run's name, by the new one."""
        found = self._find(name)
        if found is None:
            return
        client, experiment, _ = found
        client.rename_experiment(experiment, _title(new))
        for run in client.search_runs([experiment], f"attributes.run_name = '{name}'"):
            client.update_run(run.info.run_id, name=new)

    def delete(self, name: str) -> None:
        """Delete a run's experiment, what it registered, and its artifacts in the directory of
        runs. MLflow keeps its database's rows of it until `mlflow gc`.
        """
        found = self._find(name)
        if found is None:
            return
        client, experiment, artifacts = found
        # a search's candidates are many, and none is registered
        for run in client.search_runs([experiment], "tags.training LIKE '%'", max_results=5000):
            for version in client.search_model_versions(f"run_id = '{run.info.run_id}'"):
                client.delete_model_version(version.name, version.version)
        # the name of a deleted experiment stays taken
        client.rename_experiment(experiment, f"{_title(name)} deleted {time.time():.0f}")
        client.delete_experiment(experiment)
        place = urlsplit(artifacts)
        own = Path(unquote(place.path))
        if place.scheme == "file" and (self._runs.resolve() / ARTIFACTS) in own.parents:
            shutil.rmtree(own, ignore_errors=True)

    def _find(self, name: str):  # type: ignore[no-untyped-def]
        """A client, and the id and artifacts of the experiment; None where there is none."""
        if not is_server(self.uri) and experiment_id(name, self._runs) is None:
            return None
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self.uri)
        found = client.get_experiment_by_name(_title(name))
        if found is None or found.lifecycle_stage == "deleted":
            return None
        return client, str(found.experiment_id), str(found.artifact_location)


def experiment_id(name: str, runs: Path) -> str | None:
    """The id of a run's experiment in the database under `runs`; None where it is not there."""
    database = runs / "mlflow.db"
    with suppress(sqlite3.Error, OSError):
        with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)) as found:
            query = "select experiment_id from experiments where name = ?"
            row = found.execute(query, [_title(name)]).fetchone()
            return None if row is None else str(row[0])
    return None


def page_of(experiment: str, address: str) -> str:
    """The address of the page with an experiment's runs, the best first (`Experiment.describe`)."""
    view = f"viewStateShareKey={VIEW}&workflowType=machine_learning"
    return f"{address}/#/experiments/{experiment}/runs?{view}"


def _title(name: str) -> str:
    return f"blockqnn/{name}"
