"""A search in MLflow: an experiment a search, a child run a distinct block.

MLflow is never asked what was done; it may be deleted and is written again from the journal. Every
write can be repeated: runs are found by their number, and metrics carry the journal's times, which
MLflow takes in once. One writer at a time works on a database (`database_lock`), in short turns.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from blockqnn.params import flat
from blockqnn.search.history import JOURNAL, History, read_search
from blockqnn.search.records import Result
from blockqnn.space import Op
from blockqnn.space.block import CONVOLUTIONS
from evaluation.after_search import write_pictures
from evaluation.stages.doubts import doubts_of
from flows.tracking.experiment import Experiment
from flows.tracking.metrics import child_metrics, iteration_metrics, milliseconds
from flows.tracking.store import database_lock, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

PORTION = 20
"""Results written in one turn; as many may have to be looked up after a kill."""

PICTURES_EVERY = 120.0
"""Seconds between two pictures of a search that runs."""

COLUMNS = ("reward", "accuracy", "parameters", "macs", "seconds", ":code")
"""What MLflow's page of a search shows of each candidate."""


class SearchRuns:
    """The runs in MLflow's experiment `blockqnn/<name>` of the search in `directory`."""

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
        self._pictured = 0
        self._next_pictures = time.monotonic() + PICTURES_EVERY

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
                portion = _Portion(history, self.directory, self.name, self.runs)
                written += portion.write()
            if portion.last:
                break
        if history.finished or time.monotonic() > self._next_pictures:
            self._write_pictures(portion, history)
        return written

    def _write_pictures(self, portion: _Portion, history: History) -> None:
        """Keep the pictures and tables of the search so far with its run."""
        if not history.results or self._pictured == len(history.results):
            return
        count = len(history.results)
        with tempfile.TemporaryDirectory() as directory:
            write_pictures(history, Path(directory), self.name)
            with database_lock(self.runs):
                portion.write_artifacts(Path(directory))
        self._pictured = count
        self._next_pictures = time.monotonic() + PICTURES_EVERY


class _Portion:
    """The next `PORTION` results of a search that MLflow lacks, written in one turn."""

    def __init__(self, history: History, directory: Path, name: str, runs: Path) -> None:
        """Find out, or make, the experiment `blockqnn/<name>` and the search's run in it."""
        self._experiment = Experiment(name, runs)
        self._history = history
        self._note = (
            f"Block search `{name}` on {history.task.data} with the {history.settings.agent.kind} "
            "agent; child runs are the distinct blocks it trained."
        )
        self._experiment.describe(self._note, COLUMNS)
        self._parent, new = self._find_parent(directory, name)
        self._parent_id = str(self._parent.info.run_id)
        tags = self._parent.data.tags
        first = int(tags.get("mirrored_results", 0))
        self._first_iteration = int(tags.get("mirrored_iterations", 0))
        self._results = history.results[first : first + PORTION]
        self._end = first + len(self._results)
        left_behind = int(tags.get("begun_results", self._end)) > first and not new
        self._children = self._find_children() if left_behind else {}

    @property
    def last(self) -> bool:
        """Whether this portion reaches the end of the journal."""
        return self._end >= len(self._history.results)

    def write_artifacts(self, directory: Path) -> None:
        """Keep the files of a directory with the search's run."""
        self._experiment.client.log_artifacts(self._parent_id, str(directory))

    def write(self) -> int:
        """Write the children, then what they add up to; return the number of children written."""
        written = 0
        if self._results:  # looking for children takes the longer the more there are: only if this
            # tag says that a turn has begun and not ended
            self._experiment.write(self._parent_id, tags={"begun_results": self._end})
        for result in self._results:
            run = self._children.get(str(result.candidate.number))
            if result.same_as is None and (run is None or run.info.status == "RUNNING"):
                self._write_child(result, run)
                written += 1
        self._write_parent()
        return written

    def _find_parent(self, directory: Path, name: str) -> tuple[Run, bool]:
        """The search's run, and whether it is new."""
        identity, begun = _begun(directory)
        task, settings = self._history.task, self._history.settings
        tags = {
            "search": identity,
            "fingerprint": task.fingerprint,
            "mlflow.note.content": self._note,
        }
        query = f"tags.search = '{identity}'"
        run, new = self._experiment.find_or_create(query, name, begun, tags)
        if not run.data.params:  # new, or a kill came between the two
            params = flat({k: v for k, v in settings.to_dict().items() if k != "schedule"})
            self._experiment.write(run.info.run_id, params=params)  # the schedule may grow: a tag
            self._write_data(run.info.run_id)
        return run, new

    def _find_children(self) -> dict[str, Run]:
        """Children of this portion's results that are there already, finished or not, by number."""
        found: dict[str, Run] = {}
        for iteration in {result.candidate.iteration for result in self._results}:
            query = f"tags.mlflow.parentRunId = '{self._parent_id}'"
            query += f" and tags.iteration = '{iteration}'"
            found |= {run.data.tags["number"]: run for run in self._experiment.search(query)}
        return found

    def _write_child(self, result: Result, run: Run | None) -> None:
        candidate, outcome = result.candidate, result.outcome
        end = milliseconds(result.time)
        known = {"number": candidate.number, "iteration": candidate.iteration, "key": candidate.key}
        known |= {"code": str(candidate.design), "epsilon": candidate.epsilon}
        if candidate.of is not None:
            known |= {"rung": candidate.rung + 1, "goes_on_from": candidate.of}
        if run is None:
            tags = {**known, "mlflow.parentRunId": self._parent_id, "outcome": outcome.kind}
            start = end - milliseconds(outcome.seconds)
            run = self._experiment.create(f"candidate-{candidate.number}", start, tags)
        run_id = run.info.run_id
        # what MLflow's comparison has on its axes: numbers of a design
        ops = [layer.op for layer in candidate.block.layers]
        params: dict[str, object] = {
            "layers": len(ops) - 1,
            "convolutions": sum(op in CONVOLUTIONS for op in ops),
            "poolings": sum(op in (Op.MAX_POOL, Op.AVG_POOL) for op in ops),
        }
        params |= {name: str(value) for name, value in candidate.shape.to_dict().items()}
        self._experiment.write(run_id, metrics=child_metrics(result, end), params=params)
        self._write_data(run_id)
        score = outcome.kind if outcome.accuracy is None else f"{outcome.accuracy:.1f} %"
        title = f"candidate-{candidate.number}: {score}"
        self._experiment.write_drawing(run_id, candidate.block, title, outcome.reason)
        self._experiment.set_finished(run, True, end)

    def _write_parent(self) -> None:
        """Write the search's curves, one point a whole iteration, and how far MLflow has come."""
        history = self._history
        iterations = self._end // history.settings.batch
        metrics: list[Metric] = []
        for iteration in range(self._first_iteration, iterations):
            metrics += iteration_metrics(history, iteration)
        tags = {
            "schedule": json.dumps(history.settings.schedule),
            "mirrored_results": self._end,
            "mirrored_iterations": iterations,
        }
        if self.last:
            tags["mlflow.note.content"] = "\n\n".join([self._note, *doubts_of(history)])
        self._experiment.write(self._parent_id, metrics=metrics, tags=tags)
        finished = history.finished and self.last
        end = milliseconds(history.results[-1].time) if finished else None
        self._experiment.set_finished(self._parent, finished, end)  # a schedule may grow

    def _write_data(self, run_id: str) -> None:
        task, data = self._history.task, self._history.settings.data
        source = {"name": data.name, "root": data.root}
        self._experiment.write_data(
            run_id, "search", task.data, task.fingerprint, source, task.to_dict()
        )


def _begun(directory: Path) -> tuple[str, int]:
    """What tells a search from one begun anew under its name, and when it was begun (ms)."""
    with (directory / JOURNAL).open("rb") as file:
        line = file.readline()
    return hashlib.sha256(line).hexdigest()[:16], milliseconds(json.loads(line)["time"])
