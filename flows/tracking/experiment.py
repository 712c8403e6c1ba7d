"""One MLflow experiment, written so that writing again changes nothing."""

from __future__ import annotations

import getpass
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockqnn.space import Block
from evaluation.drawing import draw_block
from flows.tracking.records import VIEW
from flows.tracking.store import artifacts_uri, is_server, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run


class Experiment:
    """The experiment `blockqnn/<name>`, found or made; runs in it are found by their tags.

    Every method raises what MLflow raises when its server or database does not take it.
    """

    def __init__(self, name: str, runs: Path) -> None:
        """`runs` holds database and artifacts, unless MLFLOW_TRACKING_URI says otherwise."""
        from mlflow import MlflowClient

        self.uri = tracking_uri(runs)
        self.client: MlflowClient = MlflowClient(tracking_uri=self.uri)
        self._tags: Mapping[str, str] = {}
        self.id = self._find(name, runs)

    def search(self, query: str) -> list[Run]:
        """Runs of the experiment that a query in MLflow's language picks."""
        return list(self.client.search_runs([self.id], query, max_results=1000))

    def describe(self, note: str, columns: Sequence[str]) -> None:
        """Say what the experiment is, and which columns its page shows with `page_of`: metrics, and
        tags that begin with a colon. The runs are sorted by the first, the highest first.
        """
        first, *_ = names = [_column(name) for name in columns]
        view = {"orderByKey": first, "orderByAsc": False, "selectedColumns": names}
        tags = {"mlflow.note.content": note, f"mlflow.sharedViewState.{VIEW}": json.dumps(view)}
        for key, value in tags.items():
            if self._tags.get(key) != value:
                self.client.set_experiment_tag(self.id, key, value)

    def create(self, name: str, start: int, tags: Mapping[str, Any]) -> Run:
        """Create a run that began at `start`, in milliseconds since 1970."""
        texts = _origin() | {key: str(value) for key, value in tags.items()}
        return self.client.create_run(self.id, start, texts, name)

    def find_or_create(
        self, query: str, name: str, start: int, tags: Mapping[str, Any]
    ) -> tuple[Run, bool]:
        """The first run that a query picks, else a new one; and whether it is new."""
        found = self.search(query)
        return (found[0], False) if found else (self.create(name, start, tags), True)

    def write(
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

    def write_data(
        self, run_id: str, use: str, name: str, fingerprint: str, source: Any, profile: Any
    ) -> None:
        """Write which data set a run used, and for which use; source and profile become JSON."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        digest = fingerprint[:36]  # as much as MLflow takes
        facts = {"source": json.dumps(source), "profile": json.dumps(profile)}
        dataset = Dataset(name, digest, source_type="local", **facts)
        tags = [InputTag("mlflow.data.context", use)]
        self.client.log_inputs(run_id, [DatasetInput(dataset, tags)])

    def write_drawing(self, run_id: str, block: Block, title: str, note: str = "") -> None:
        """Keep a drawing of a block as the run's artifact block.svg, and show it in the run's
        description, below the note.
        """
        with tempfile.TemporaryDirectory() as directory:
            picture = Path(directory) / "block.svg"
            draw_block(block, picture, title)
            self.client.log_artifact(run_id, str(picture))
        shown = f"![block](/get-artifact?path=block.svg&run_uuid={run_id})"
        note = "\n\n".join(filter(None, (note, shown)))
        self.write(run_id, tags={"mlflow.note.content": note})

    def set_finished(self, run: Run, finished: bool, end: int | None = None) -> None:
        """Let a run be finished, at `end` in milliseconds since 1970, or be running again."""
        if finished and run.info.status != "FINISHED":
            self.client.set_terminated(run.info.run_id, "FINISHED", end)
        elif not finished and run.info.status != "RUNNING":
            self.client.update_run(run.info.run_id, status="RUNNING")

    def end_left(self) -> None:
        """Let what is running be killed: no process does it any more."""
        for run in self.search("attributes.status = 'RUNNING'"):
            self.client.set_terminated(run.info.run_id, "KILLED")

    def _find(self, name: str, runs: Path) -> str:
        title = f"blockqnn/{name}"
        if (found := self.client.get_experiment_by_name(title)) is not None:
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            self._tags = found.tags
            return str(found.experiment_id)
        location = None if is_server(self.uri) else f"{artifacts_uri(runs)}/{name}"
        tags = {"mlflow.experimentKind": "custom_model_development"}  # the view the UI opens with
        return str(self.client.create_experiment(title, artifact_location=location, tags=tags))


def _column(name: str) -> str:
    """A metric, or with a colon before it a tag, as MLflow's pages name a column."""
    return f"tags.`{name[1:]}`" if name.startswith(":") else f"metrics.`{name}`"


def _origin() -> dict[str, str]:
    """Tags of who wrote a run, and with what."""
    origin = {"mlflow.source.name": "blockqnn", "mlflow.source.type": "LOCAL"}
    with suppress(OSError, KeyError):  # a container may run as nobody that has a name
        origin["mlflow.user"] = getpass.getuser()
    return origin
