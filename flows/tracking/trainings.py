"""A run of final trainings mirrored in MLflow: a run a training, under one for the selection.

Everything is read from the files of the run, so that MLflow may be deleted and is written again.
Runs are found by their training's identity; curves go on after the epochs that a run's tag counts.
A finished final training is a version of the registered model `blockqnn-<data set>` too.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockqnn.errors import SearchError, UserError
from blockqnn.params import flat
from blockqnn.space import LONGEST, Block
from blockqnn.storage import read_json
from blockqnn.training.final.job import Job, read_job
from blockqnn.zoo import named_block
from evaluation.drawing import draw_block
from evaluation.stages.selection import SELECTION, WINNER, read_selection
from flows.tracking.experiment import Experiment, dataset_input
from flows.tracking.metrics import milliseconds
from flows.tracking.store import database_lock, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric, Run

CURVES = (
    "loss",
    "train_accuracy",
    "accuracy",
    "learning_rate",
    "images_per_second",
    "device_memory",
)
MOST = 900
"""Points sent at once; MLflow takes 1000."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class TrainingFiles:
    """What the files say of one training; `result` and `evaluation` are None while there is none.

    `moment` is when the training wrote them last, in seconds since 1970.
    """

    directory: Path
    job: Job
    curve: list[dict[str, float]]
    moment: float
    result: Record | None
    evaluation: Record | None


class TrainingRuns:
    """Mirrors the run in `directory` as the MLflow experiment `blockqnn/<name>`."""

    def __init__(self, directory: Path, name: str, runs: Path) -> None:
        """`runs` holds database and artifacts, unless MLFLOW_TRACKING_URI says otherwise."""
        self.directory = directory
        self.name = name
        self.runs = runs
        self.uri = tracking_uri(runs)
        self._stamps: dict[Path, object] = {}
        self._versions: dict[Path, str] = {}
        self._champion: str | None = None

    def sync(self) -> int:
        """Write what the files have and MLflow lacks; return the number of trainings written.

        Safe to call at any time, from any process. Raises SearchError when there are no trainings,
        and MLflow's or the system's errors: the next sync goes on from there.
        """
        places = sorted((self.directory / "trainings").glob("*/job.json"))
        if not places:
            raise SearchError(f"there is no search and there are no trainings in {self.directory}")
        written = 0
        visited = 0
        for place in places:
            stamp = self._stamp(place.parent)
            if self._stamps.get(place.parent) != stamp:
                written += self._sync(place.parent)
                self._stamps[place.parent] = stamp
                visited += 1
        if visited:
            self._set_champion()
        return written

    def _sync(self, directory: Path) -> bool:
        """Write one training; whether there was anything to be written."""
        seen = self._see(directory)
        if seen is None:
            return False
        with database_lock(self.runs):  # in turns: others write in the database too
            experiment = Experiment(self.name, self.runs)
            run_id, new = _write(experiment, self._parent(experiment, seen), seen)
            self._register(run_id, seen)
        return new

    def _stamp(self, directory: Path) -> object:
        """Changes when any file does that is mirrored."""
        names = [directory / "progress.json", directory / "result.json"]
        names += [self.directory / SELECTION, self._evaluation(directory)]
        return [_modified(path) for path in names]

    def _see(self, directory: Path) -> TrainingFiles | None:
        """None for a training that has not begun."""
        result, progress = _read(directory / "result.json"), _read(directory / "progress.json")
        found = result or progress
        if found is None:
            return None
        moment = found["finished"] if result else found["time"]
        evaluation = _read(self._evaluation(directory)) if result else None
        return TrainingFiles(
            directory, read_job(directory), found["curve"], moment, result, evaluation
        )

    def _evaluation(self, directory: Path) -> Path:
        return self.directory / "evaluations" / f"{directory.name}.json"

    def _parent(self, experiment: Experiment, seen: TrainingFiles) -> str:
        """The run above all trainings: what was selected."""
        found = experiment.search("tags.kind = 'trainings'")
        if found:
            run = found[0]
        else:
            tags = {"kind": "trainings", "data": seen.job.data, "mlflow.runName": self.name}
            run = experiment.create(self.name, _start(seen), tags)
        run_id = str(run.info.run_id)
        if not run.data.params:
            experiment.record(
                run_id, params={"data": seen.job.data, "search": seen.job.plan.search}
            )
        note = f"Final trainings on {seen.job.data}."
        tags = {}
        try:
            selection = read_selection(self.directory / SELECTION)
        except UserError:
            pass
        else:
            best = selection["winner"]
            tags |= {"winner": best["block"], "selection": json.dumps(selection["ranking"])[:5000]}
            note += (
                f" Of the {len(selection['ranking'])} best blocks of search "
                f"`{selection['search']}` candidate {best['number']} won with "
                f"{best['accuracy']:.2f} % of the held-out images: `{best['block']}`."
            )
        experiment.record(run_id, tags={**tags, "mlflow.note.content": note})
        places = (self.directory / "trainings").glob("*/job.json")
        finished = all((place.parent / "result.json").exists() for place in places)
        if finished and run.info.status != "FINISHED":
            experiment.client.set_terminated(run_id, "FINISHED")
        elif not finished and run.info.status != "RUNNING":
            experiment.client.update_run(run_id, status="RUNNING")
        return run_id

    def _register(self, run_id: str, seen: TrainingFiles) -> None:
        """Make a finished final training a version of the data set's model."""
        result = seen.result
        if result is None or result["outcome"] != "trained" or seen.job.split != "everything":
            return
        from flows.tracking.registry import model_name, register

        tags = {}
        if seen.evaluation is not None:
            tags["test_top1"] = f"{seen.evaluation['test']['top1']['value']:.2f}"
        self._versions[seen.directory] = register(
            self.uri,
            run_id,
            seen.directory,
            name=model_name(seen.job.data),
            drawing_title=seen.job.label,
            tags=tags,
        )

    def _set_champion(self) -> None:
        """Let the alias champion name the network that was chosen without the test images: the
        winner of the selection, else the plan's first, trained with the first seed.
        """
        trained = [seen for path in self._versions if (seen := self._see(path)) is not None]
        if not trained:
            return
        plan = max(trained, key=lambda seen: seen.moment).job.plan
        labels = [WINNER, *(named_block(name)[0] for name in plan.blocks), *plan.compare]
        for label in labels:
            if of_label := [seen for seen in trained if seen.job.label == label]:
                best = min(of_label, key=lambda seen: (seen.job.seed, -seen.moment))
                version = self._versions[best.directory]
                if version != self._champion:
                    from flows.tracking.registry import model_name, set_champion

                    with database_lock(self.runs):
                        set_champion(self.uri, model_name(best.job.data), version)
                    self._champion = version
                return


def _write(experiment: Experiment, parent: str, seen: TrainingFiles) -> tuple[str, bool]:
    """Bring one training's run to where its files are; its id, and whether that took writing."""
    job, result, evaluation = seen.job, seen.result, seen.evaluation
    found = experiment.search(
        f"tags.mlflow.parentRunId = '{parent}' and tags.training = '{seen.directory.name}'"
    )
    run = found[0] if found else _create(experiment, parent, seen)
    run_id, tags, new = str(run.info.run_id), run.data.tags, not found
    if not run.data.params:  # new, or a kill came between the two
        experiment.record(run_id, params=_params(job))
    for points, epochs in _curve(run, seen.curve, int(tags.get("mirrored_epochs", 0))):
        experiment.record(run_id, metrics=points, tags={"mirrored_epochs": epochs})
        new = True
    if job.block is not None and "drawn" not in tags:
        with tempfile.TemporaryDirectory() as place:
            picture = Path(place) / "block.svg"
            draw_block(Block.parse(job.block, LONGEST), picture, job.label)
            experiment.client.log_artifact(run_id, str(picture))
        experiment.record(run_id, tags={"drawn": "yes"})
    if result is not None and run.info.status != "FINISHED":
        experiment.client.log_inputs(run_id, [_data(job, result)])
        end = milliseconds(result["finished"])
        values = {name: result[name] for name in ("parameters", "macs", "seconds")}
        experiment.record(run_id, metrics=_metrics(values, end), tags=_ends(result))
        experiment.client.set_terminated(run_id, "FINISHED", end)
        new = True
    if evaluation is not None and tags.get("evaluated") != str(evaluation["finished"]):
        metrics = _metrics(_judged(evaluation), milliseconds(evaluation["finished"]))
        experiment.record(run_id, metrics=metrics, tags={"evaluated": evaluation["finished"]})
        new = True
    return run_id, new


def _create(experiment: Experiment, parent: str, seen: TrainingFiles) -> Run:
    job = seen.job
    tags = {
        "mlflow.parentRunId": parent,
        "training": seen.directory.name,
        "identity": job.identity,
        "label": job.label,
        "split": job.split,
    }
    on = "held out" if job.split == "train" else "everything"
    return experiment.create(f"{job.label} {on} {job.seed}", _start(seen), tags)


def _params(job: Job) -> dict[str, Any]:
    settings = job.plan.to_dict()
    params = {"label": job.label, "split": job.split, "seed": job.seed, "data": job.data}
    params |= {"block": job.block} if job.block is not None else {"timm": job.timm}
    params |= flat({"recipe": settings["recipe"]})
    return params | (flat({"network": settings["network"]}) if job.block is not None else {})


def _curve(
    run: Run, curve: list[dict[str, float]], first: int
) -> Iterator[tuple[list[Metric], int]]:
    """Points of the epochs after the `first`, in portions, each with the epochs it reaches.

    The run's own beginning and the seconds of each epoch make their times, so that they are the
    same whenever they are made.
    """
    from mlflow.entities import Metric

    points: list[Metric] = []
    seconds = 0.0
    for epochs, entry in enumerate(curve, start=1):
        seconds += entry.get("seconds") or 0.0
        if epochs <= first:
            continue
        time = int(run.info.start_time) + milliseconds(seconds)
        points += [
            Metric(name, float(entry[name]), time, int(entry["epoch"]))
            for name in CURVES
            if entry.get(name) is not None and math.isfinite(entry[name])
        ]
        if len(points) > MOST - len(CURVES) or epochs == len(curve):
            yield points, epochs
            points = []


def _judged(evaluation: Record) -> dict[str, float]:
    """The numbers of an evaluation, by name."""
    values = {}
    for prefix, found in (("test", evaluation["test"]), ("larger", evaluation.get("larger") or {})):
        for name in ("top1", "top5", "nll", "ece"):
            value = found.get(name)
            value = value["value"] if isinstance(value, Mapping) else value
            if value is not None:
                values[f"{prefix}_{name}"] = value
    for row in evaluation["speed"]:
        if row.get("milliseconds") is not None:
            values[f"milliseconds_batch_{row['batch']}"] = row["milliseconds"]
    return values


def _metrics(values: Mapping[str, float], time: int) -> list[Metric]:
    from mlflow.entities import Metric

    return [Metric(name, float(value), time, 0) for name, value in values.items()]


def _data(job: Job, result: Record) -> DatasetInput:
    data = result["data"]
    profile = {key: data[key] for key in ("train_images", "held_out_images", "image_size")}
    source = {"name": data["name"], "root": job.plan.data.root}
    return dataset_input(data["name"], data["fingerprint"], source, profile, "training")


def _ends(result: Record) -> dict[str, Any]:
    tags = {name: result[name] for name in ("outcome", "device", "devices", "precision", "commit")}
    return tags | ({"mlflow.note.content": result["reason"]} if result["reason"] else {})


def _start(seen: TrainingFiles) -> int:
    """When a training began, were it not for pauses (ms)."""
    return milliseconds(seen.moment - sum(entry.get("seconds") or 0.0 for entry in seen.curve))


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON object; None for none, or one that cannot be read: a mirror complains to nobody."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
