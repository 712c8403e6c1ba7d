"""A run of final trainings in MLflow: a run a training, under one for the selection.

Everything is read from the files of the run, so that MLflow may be deleted and is written again.
Runs are found by their training's identity; curves go on after the epochs that a run's tag counts.
A finished final training is a version of the registered model `blockqnn-<data set>` too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from blockqnn.errors import SearchError, UserError
from blockqnn.params import flat
from blockqnn.space import LONGEST, Block
from blockqnn.storage import read_json
from blockqnn.training.final.job import Job, read_job
from blockqnn.training.final.result import TrainingResult
from blockqnn.zoo import named_design
from evaluation.stages.selection import SELECTION, WINNER, read_selection, winner_code
from flows.tracking.experiment import Experiment
from flows.tracking.metrics import curve_metrics, milliseconds, points
from flows.tracking.store import database_lock, tracking_uri

COLUMNS = ("test_top1", "accuracy", "parameters", "macs", "seconds", ":label", ":split")
"""What MLflow's page of final trainings shows of each."""

PORTION = 120
"""Epochs of a curve sent at once: MLflow takes 1000 points."""


@dataclass(frozen=True)
class TrainingFiles:
    """The content of one training's files."""

    directory: Path
    """The training's directory; its name is the training's identity."""

    job: Job
    """The job that the training was given."""

    curve: Sequence[Mapping[str, float]]
    """Entries of the epochs done so far."""

    moment: float
    """When the training wrote its files last, in seconds since 1970."""

    result: TrainingResult | None
    """The content of result.json; None for a training that has not finished."""

    evaluation: Mapping[str, Any] | None
    """The evaluation on the test images; None while there is none."""

    @property
    def begun(self) -> int:
        """When the training began, were it not for pauses, in milliseconds since 1970."""
        return milliseconds(self.moment - sum(entry.get("seconds") or 0.0 for entry in self.curve))


class TrainingRuns:
    """The runs in MLflow's experiment `blockqnn/<name>` of the final trainings in `directory`."""

    def __init__(self, directory: Path, name: str, runs: Path) -> None:
        """`runs` holds database and artifacts, unless MLFLOW_TRACKING_URI says otherwise."""
        self.directory = directory
        self.name = name
        self.runs = runs
        self.uri = tracking_uri(runs)
        self._stamps: dict[Path, object] = {}
        self._versions: dict[Path, tuple[TrainingFiles, str]] = {}
        self._champion: str | None = None

    def sync(self) -> int:
        """Write what the files have and MLflow lacks; return the number of trainings written.

        Safe to call at any time, from any process. Raises SearchError when there are no trainings,
        and MLflow's or the system's errors: the next sync goes on from there.
        """
        trainings = self._trainings()
        if not trainings:
            raise SearchError(f"there is no search and there are no trainings in {self.directory}")
        written = 0
        changed = False
        for training in trainings:
            stamp = self._stamp(training)
            if self._stamps.get(training) != stamp:
                written += self._write(training)
                self._stamps[training] = stamp
                changed = True
        if changed:
            self._set_champion()
        return written

    def _trainings(self) -> list[Path]:
        return sorted(job.parent for job in self.directory.glob("trainings/*/job.json"))

    def _stamp(self, training: Path) -> object:
        """A value that changes when any file does that says something about a training."""
        files = [training / "progress.json", training / "result.json"]
        files += [self.directory / SELECTION, self._evaluation(training)]
        return [path.stat().st_mtime_ns if path.exists() else 0 for path in files]

    def _write(self, training: Path) -> bool:
        """Write one training; returns whether there was anything to be written."""
        files = self._read(training)
        if files is None:
            return False
        with database_lock(self.runs):  # in turns: others write in the database too
            experiment = Experiment(self.name, self.runs)
            run_id, new = _write_training(experiment, self._write_parent(experiment, files), files)
            self._register(run_id, files)
        return new

    def _read(self, training: Path) -> TrainingFiles | None:
        """The files of a training; None when it has not begun."""
        result: TrainingResult | None = _read_object(training / "result.json")
        progress = _read_object(training / "progress.json")
        evaluation = _read_object(self._evaluation(training)) if result else None
        if result is not None:
            curve, moment = result["curve"], result["finished"]
        elif progress is not None:
            curve, moment = progress["curve"], progress["time"]
        else:
            return None
        return TrainingFiles(training, read_job(training), curve, moment, result, evaluation)

    def _evaluation(self, training: Path) -> Path:
        return self.directory / "evaluations" / f"{training.name}.json"

    def _write_parent(self, experiment: Experiment, files: TrainingFiles) -> str:
        """Write the run above all trainings, with what was selected; returns its id."""
        data = files.job.data
        tags = {"kind": "trainings", "data": data, "mlflow.runName": self.name}
        run, _ = experiment.find_or_create("tags.kind = 'trainings'", self.name, files.begun, tags)
        run_id = str(run.info.run_id)
        if not run.data.params:
            experiment.write(run_id, params={"data": data, "search": files.job.plan.search})
        note = f"Final trainings on {data}."
        experiment.describe(note, COLUMNS)
        tags = {"mlflow.note.content": note}
        try:
            selection = read_selection(self.directory / SELECTION)
        except UserError:
            pass
        else:
            best, ranking = selection["winner"], selection["ranking"]
            code = winner_code(selection)
            tags |= {"winner": code, "selection": json.dumps(ranking)[:5000]}
            tags["mlflow.note.content"] += (
                f" Of the {len(ranking)} best blocks of search "
                f"`{selection['search']}` candidate {best['number']} won with "
                f"{best['accuracy']:.2f} % of the held-out images: `{code}`."
            )
        experiment.write(run_id, tags=tags)
        finished = all(  # of those that have begun: a plan may have been given up
            (training / "result.json").exists()
            for training in self._trainings()
            if (training / "progress.json").exists()
        )
        experiment.set_finished(run, finished)
        return run_id

    def _register(self, run_id: str, files: TrainingFiles) -> None:
        """Make a finished final training a version of the data set's model."""
        job, result = files.job, files.result
        if result is None or result["outcome"] != "trained" or job.split != "everything":
            return
        from flows.tracking.registry import register  # torch, which a sync may do without

        tags = {}
        if files.evaluation is not None:
            tags["test_top1"] = f"{files.evaluation['test']['top1']['value']:.2f}"
        version = register(self.uri, run_id, files.directory, tags=tags)
        self._versions[files.directory] = files, version

    def _set_champion(self) -> None:
        """Let the alias champion name the network that was chosen without the test images: the
        winner of the selection, else the plan's first, trained with the first seed.
        """
        if not self._versions:
            return
        from flows.tracking.registry import model_name, set_champion

        trained = self._versions.values()
        plan = max((files for files, _ in trained), key=lambda files: files.moment).job.plan
        labels = [WINNER, *(named_design(name)[0] for name in plan.blocks), *plan.compare]
        ranked = [
            (labels.index(files.job.label), files.job.seed, -files.moment, version, files.job.data)
            for files, version in trained
            if files.job.label in labels
        ]
        if ranked and (best := min(ranked))[3] != self._champion:
            *_, version, data = best
            with database_lock(self.runs):
                set_champion(self.uri, model_name(data), version)
            self._champion = version


def _write_training(experiment: Experiment, parent: str, files: TrainingFiles) -> tuple[str, bool]:
    """Bring one training's run to where its files are; its id, and whether that took writing."""
    job, result, evaluation = files.job, files.result, files.evaluation
    tags = {
        "mlflow.parentRunId": parent,
        "training": files.directory.name,
        "identity": job.identity,
        "label": job.label,
        "split": job.split,
    }
    query = f"tags.mlflow.parentRunId = '{parent}' and tags.training = '{files.directory.name}'"
    run, new = experiment.find_or_create(query, files.directory.name, files.begun, tags)
    run_id, written = str(run.info.run_id), run.data.tags
    if not run.data.params:  # new, or a kill came between the two
        experiment.write(run_id, params=_params(job))
    curves = curve_metrics(files.curve, int(run.info.start_time), final=True)
    for first in range(int(written.get("mirrored_epochs", 0)), len(curves), PORTION):
        portion = curves[first : first + PORTION]
        metrics = list(chain.from_iterable(portion))
        experiment.write(run_id, metrics=metrics, tags={"mirrored_epochs": first + len(portion)})
        new = True
    if job.block is not None and "drawn" not in written:
        experiment.write_drawing(run_id, Block.parse(job.block, LONGEST), job.label)
        experiment.write(run_id, tags={"drawn": "yes"})
    if result is not None and run.info.status != "FINISHED":
        _write_result(experiment, run_id, job, result)
        experiment.set_finished(run, True, milliseconds(result["finished"]))
        new = True
    elif result is None:
        experiment.set_finished(run, False)  # it goes on
    if evaluation is not None and written.get("evaluated") != str(evaluation["finished"]):
        metrics = points(_test_values(evaluation), milliseconds(evaluation["finished"]))
        experiment.write(run_id, metrics=metrics, tags={"evaluated": evaluation["finished"]})
        new = True
    return run_id, new


def _params(job: Job) -> dict[str, Any]:
    settings = job.plan.to_dict()
    params = {"label": job.label, "split": job.split, "seed": job.seed, "data": job.data}
    params |= {"block": job.block} if job.block is not None else {"timm": job.timm}
    params |= flat({"recipe": settings["recipe"]})
    return params | (flat({"network": settings["network"]}) if job.block is not None else {})


def _write_result(experiment: Experiment, run_id: str, job: Job, result: TrainingResult) -> None:
    values: Mapping[str, Any] = result
    data: Mapping[str, Any] = result["data"]
    source = {"name": data["name"], "root": job.plan.data.root}
    profile = {key: data[key] for key in ("train_images", "held_out_images", "image_size")}
    experiment.write_data(run_id, "training", data["name"], data["fingerprint"], source, profile)
    tags = {key: values[key] for key in ("outcome", "device", "devices", "precision", "commit")}
    if result["reason"]:
        tags["reason"] = result["reason"]
    numbers = {key: values[key] for key in ("parameters", "macs", "seconds")}
    metrics = points(numbers, milliseconds(result["finished"]))
    experiment.write(run_id, metrics=metrics, tags=tags)


def _test_values(evaluation: Mapping[str, Any]) -> dict[str, float | None]:
    """The numbers of an evaluation by metric; None for those that were not measured."""
    values: dict[str, float | None] = {}
    for prefix, found in (("test", evaluation["test"]), ("larger", evaluation.get("larger") or {})):
        for name in ("top1", "top5", "nll", "ece"):
            value = found.get(name)
            values[f"{prefix}_{name}"] = value["value"] if isinstance(value, Mapping) else value
    for row in evaluation["speed"]:
        values[f"milliseconds_batch_{row['batch']}"] = row.get("milliseconds")
    return values


def _read_object(path: Path) -> Any:
    """The JSON object in a file; None where there is none to be read."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
