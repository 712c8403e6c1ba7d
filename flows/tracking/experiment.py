"""One MLflow experiment, written so that writing again changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.tracking.store import artifacts_uri, is_server, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Run


class Experiment:
    """The experiment `blockqnn/<name>`, found or made; runs in it are found by their tags."""

    def __init__(self, name: str, runs: Path) -> None:
        """`runs` holds database and artifacts, unless MLFLOW_TRACKING_URI says otherwise."""
        from mlflow import MlflowClient

        self.uri = tracking_uri(runs)
        self.client: MlflowClient = MlflowClient(tracking_uri=self.uri)
        self._id = self._find(name, runs)

    def search(self, query: str) -> list[Run]:
        """Runs of the experiment that MLflow's query picks."""
        return list(self.client.search_runs([self._id], query, max_results=1000))

    def create(self, name: str, start: int, tags: Mapping[str, Any]) -> Run:
        """A new run, begun at `start` (ms)."""
        return self.client.create_run(
            self._id, start, {key: str(value) for key, value in tags.items()}, name
        )

    def record(
        self,
        run_id: str,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Write into a run in one go; a metric's point that is there already stays one."""
        from mlflow.entities import Param, RunTag

        self.client.log_batch(
            run_id,
            metrics,
            [Param(key, str(value)) for key, value in (params or {}).items()],
            [RunTag(key, str(value)) for key, value in (tags or {}).items()],
        )

    def _find(self, name: str, runs: Path) -> str:
        name = f"blockqnn/{name}"
        if (found := self.client.get_experiment_by_name(name)) is not None:
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        location = None
        if not is_server(self.uri):
            location = f"{artifacts_uri(runs)}/{name.partition('/')[2]}"
        tags = {"mlflow.experimentKind": "custom_model_development"}  # the view the UI opens with
        return str(self.client.create_experiment(name, artifact_location=location, tags=tags))


def dataset_input(
    name: str, fingerprint: str, source: Mapping[str, Any], profile: Mapping[str, Any], context: str
) -> DatasetInput:
    """A data set that a run used, for `context`."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name,
        digest=fingerprint[:36],  # as much as MLflow takes
        source_type="local",
        source=json.dumps(source),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
