"""Writes a part of a search's history into MLflow, so that writing it again changes nothing."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from blockqnn.params import flat
from blockqnn.search.history import JOURNAL, History, read_search
from blockqnn.search.records import Result
from evaluation.drawing import draw_block
from flows.tracking.experiment import Experiment, dataset_input
from flows.tracking.metrics import child_metrics, iteration_metrics, milliseconds
from flows.tracking.store import database_lock, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric, Run

CHUNK = 50
"""Results written in one turn; as many may have to be looked up after a kill."""


class _Portion:
    """One turn with the database: up to `CHUNK` results after those that are there already."""

    def __init__(self, history: History, directory: Path, name: str, runs: Path) -> None:
        """Find out, or make, the experiment `blockqnn/<name>` and the search's run in it."""
        self._experiment = Experiment(name, runs)
        self._client = self._experiment.client
        self._directory = directory
        self._name = name
        self._history = history
        self._parent, fresh = self._find_parent()
        tags = self._parent.data.tags
        self._first = int(tags.get("mirrored_results", 0))
        self._first_iteration = int(tags.get("mirrored_iterations", 0))
        self._results = history.results[self._first : self._first + CHUNK]
        self._last = self._first + len(self._results)
        left_behind = int(tags.get("begun_results", self._last)) > self._first and not fresh
        self._children = self._find_children() if left_behind else {}

    @property
    def done(self) -> bool:
        """Whether this turn reached the end of the journal."""
        return self._last >= len(self._history.results)

    def write(self) -> int:
        """Write the children, then what they add up to; return the number of children written."""
        written = 0
        if self._results:  # looking for children takes the longer the more there are: only if this
            # tag says that a turn has begun and not ended
            self._experiment.record(self._parent.info.run_id, tags={"begun_results": self._last})
        for result in self._results:
            run = self._children.get(str(result.candidate.number))
            if result.same_as is None and (run is None or run.info.status == "RUNNING"):
                self._write_child(result, run)
                written += 1
        self._write_progress()
        return written

    def _find_parent(self) -> tuple[Run, bool]:
        """The search's run, and whether it is new."""
        identity, begun = _begun(self._directory)
        runs = self._experiment.search(f"tags.search = '{identity}'")
        task, settings = self._history.task, self._history.settings
        tags = {
            "search": identity,
            "fingerprint": task.fingerprint,
            "mlflow.note.content": f"Block search `{self._name}` on {task.data} with the "
            f"{settings.agent.kind} agent; child runs are the distinct blocks it trained.",
        }
        run = runs[0] if runs else self._experiment.create(self._name, begun, tags)
        if not run.data.params:  # new, or a kill came between the two
            params = flat({k: v for k, v in settings.to_dict().items() if k != "schedule"})
            self._experiment.record(run.info.run_id, params=params)  # the schedule may grow: a tag
            self._client.log_inputs(run.info.run_id, [self._dataset()])
        return run, not runs

    def _find_children(self) -> dict[str, Run]:
        """Children of this turn's results that are there already, finished or not, by number."""
        parent = self._parent.info.run_id
        found: dict[str, Run] = {}
        for iteration in {result.candidate.iteration for result in self._results}:
            query = f"tags.mlflow.parentRunId = '{parent}' and tags.iteration = '{iteration}'"
            found |= {run.data.tags["number"]: run for run in self._experiment.search(query)}
        return found

    def _write_child(self, result: Result, run: Run | None) -> None:
        candidate, outcome = result.candidate, result.outcome
        end = milliseconds(result.time)
        tags = {
            "mlflow.parentRunId": self._parent.info.run_id,
            "number": candidate.number,
            "iteration": candidate.iteration,
            "key": candidate.key,
            "outcome": outcome.kind,
        }
        if outcome.reason:
            tags["mlflow.note.content"] = outcome.reason
        if run is None:
            start = end - milliseconds(outcome.seconds)
            run = self._experiment.create(
                f"{candidate.number:05d} {candidate.key[:8]}", start, tags
            )
        run_id = run.info.run_id
        params = {
            "code": str(candidate.block),
            "key": candidate.key,
            "number": candidate.number,
            "iteration": candidate.iteration,
            "epsilon": candidate.epsilon,
            "layers": len(candidate.block.layers) - 1,
        }
        self._experiment.record(run_id, metrics=child_metrics(result, end), params=params)
        self._client.log_inputs(run_id, [self._dataset()])
        with tempfile.TemporaryDirectory() as directory:
            picture = Path(directory) / "block.svg"
            draw_block(candidate.block, picture, _title(result))
            self._client.log_artifact(run_id, str(picture))
        self._client.set_terminated(run_id, "FINISHED", end)

    def _write_progress(self) -> None:
        """The parent's curves, one point a whole iteration, and how far the mirror has come."""
        history, run_id = self._history, self._parent.info.run_id
        batch = history.settings.batch
        iterations = self._last // batch
        metrics: list[Metric] = []
        for iteration in range(self._first_iteration, iterations):
            metrics += iteration_metrics(history, iteration)
        tags = {
            "schedule": json.dumps(history.settings.schedule),
            "mirrored_results": self._last,
            "mirrored_iterations": iterations,
        }
        self._experiment.record(run_id, metrics=metrics, tags=tags)
        finished = history.finished and self.done
        if finished and self._parent.info.status != "FINISHED":
            self._client.set_terminated(run_id, "FINISHED", milliseconds(history.results[-1].time))
        elif not finished and self._parent.info.status != "RUNNING":  # its schedule has grown
            self._client.update_run(run_id, status="RUNNING")

    def _dataset(self) -> DatasetInput:
        task, data = self._history.task, self._history.settings.data
        source = {"name": data.name, "root": data.root}
        return dataset_input(task.data, task.fingerprint, source, task.to_dict(), "search")


def _begun(directory: Path) -> tuple[str, int]:
    """What tells a search from one begun anew under its name, and when it was begun (ms)."""
    with (directory / JOURNAL).open("rb") as file:
        line = file.readline()
    return hashlib.sha256(line).hexdigest()[:16], milliseconds(json.loads(line)["time"])


def _title(result: Result) -> str:
    accuracy = result.outcome.accuracy
    score = result.outcome.kind if accuracy is None else f"{accuracy:.1f} %"
    return f"{result.candidate.number}: {score}"


class SearchRuns:
    """Mirrors the search in `directory` as the MLflow experiment `blockqnn/<name>`."""

    def __init__(
        self, directory: Path, name: str, runs: Path, history: History | None = None
    ) -> None:
        """`runs` holds database and artifacts, unless MLFLOW_TRACKING_URI says otherwise.

        `history` is the running search, if at hand: results are only ever added, so a thread may
        read them, and the journal need not be read again and again.
        """
        self.directory = directory
        self.name = name
        self.runs = runs
        self.uri = tracking_uri(runs)
        self._history = history

    def sync(self) -> int:
        """Write what the journal has and MLflow lacks; return the number of child runs written.

        Safe to call at any time, from any process.
        Raises SearchError when there is no journal, and MLflow's or the system's errors when the
        database does not take it: what was written stays, and the next sync goes on from there.
        """
        history = self._history or read_search(self.directory)
        written = 0
        while True:
            with database_lock(self.runs):
                turn = _Portion(history, self.directory, self.name, self.runs)
                written += turn.write()
            if turn.done:
                return written
