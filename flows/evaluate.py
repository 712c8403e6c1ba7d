"""Evaluation as a Prefect flow: final trainings meet the test images, one after another.

No other flow opens the test set. An evaluation lies in evaluations/<id>.json of the run; a training
is not judged again while it and the settings stay the same.
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from prefect import flow

from blockqnn.data.images import Images, open_images
from blockqnn.errors import SearchError
from blockqnn.network.weights import load_weights
from blockqnn.params import load_plan
from blockqnn.settings import Plan
from blockqnn.storage import as_json, as_search_error, read_json, write_json
from blockqnn.training.devices import resolve
from evaluation.stages.trained import Trained, read_trained
from evaluation.test_set import Evaluation, judge
from flows.attempts import attempt_task
from flows.final_trainings import PlannedTrainings
from flows.prefect_pages.run_form import PlanName, PlanSettings, Profile
from flows.prefect_pages.run_page import Publisher, page_of
from flows.runs import open_run, run_directory, runs_directory
from flows.terminal.say import say
from flows.terminal.training_tables import network_table
from flows.tracking.background import BackgroundWriter
from flows.tracking.trainings import TrainingRuns

EVALUATIONS = "evaluations"
"""Directory of a run's evaluations, below the run's own."""

TRACKING_PATIENCE = 120.0
"""Seconds that MLflow gets to take the results in."""


@flow(name="blockqnn", flow_run_name="evaluate-{data}", persist_result=False, retries=0)
def evaluate(
    data: PlanName = "digits",
    name: str | None = None,
    profile: Profile = None,
    overrides: PlanSettings = {},  # noqa: B006, as nobody changes it: Prefect shows it
    params: str = "params.yaml",
    runs: str | None = None,
    networks: list[str] | None = None,
    winner: str | None = None,
    models: str | None = None,
    wait: bool = False,
) -> list[dict[str, Any]]:
    """Judge a plan's finished final trainings on the test images; returns a table of networks.

    Args:
        data: the plan, a section under `training` of the params file.
        name: the run's name and its directory under `runs`; null for train-DATA.
        profile: a file under profiles/ laid over the params file; null for none.
        overrides: settings that differ from the profile: by section, or by dotted names such as
            {"recipe.epochs": 3}.
        params: the params file.
        runs: directory of all runs, beside the MLflow database; null for the usual one.
        networks: these alone: winner, or blocks and models of the plan.
        winner: a selection.json to take the winner from; null for the run's own.
        models: a directory of what `blockqnn train --to` wrote, to judge that instead.
        wait: let another process that has this run finish, instead of failing.
    """
    plan = load_plan(Path(params), data, profile, overrides)
    home = Path(runs) if runs else runs_directory()
    name, directory = run_directory(home, name, data)
    planned = PlannedTrainings(directory, home, plan, data, Path(winner) if winner else None)
    with open_run(directory, wait), as_search_error(directory):
        found = finals(planned, networks, Path(models) if models else None)
        publisher = Publisher(name)
        try:
            evaluations = _Judge(directory, plan).run(found)
            table = network_table([each.result for each in found], evaluations)
            publisher.publish(page_of({"On the test images": table}))
        finally:
            publisher.close()
        if plan.tracking and models is None:
            BackgroundWriter(TrainingRuns(directory, name, home)).close(TRACKING_PATIENCE)
        return table


def finals(
    planned: PlannedTrainings, networks: Sequence[str] | None = None, models: Path | None = None
) -> list[Trained]:
    """A plan's final trainings that have finished, in its order, or those kept below `models`.

    `models` is a directory of what `blockqnn train --to` wrote. Raises `SearchError` when there
    are none, and `SettingsError` for networks not in the plan.
    """
    if models is not None:
        where = f"below {models} has finished"
        found = [f for f in read_trained(models) if not networks or f.result["label"] in networks]
    else:
        where = f"of this plan has finished in {planned.directory}"
        found = [
            Trained(directory.name, result, directory / "weights.safetensors")
            for directory, result in planned.finished(networks).items()
        ]
    if not found:
        raise SearchError(
            f"no final training {where}: run blockqnn train first, with the same settings"
        )
    return found


def read_evaluations(directory: Path, found: Sequence[Trained], plan: Plan) -> list[Evaluation]:
    """The evaluations of these trainings that the run in `directory` has, with these settings."""
    kept = (_kept(directory, each, plan) for each in found)
    return [evaluation for evaluation in kept if evaluation is not None]


class _Judge:
    """Judges trainings one by one with the test images, which are loaded when first needed."""

    def __init__(self, directory: Path, plan: Plan) -> None:
        self._directory = directory
        self._plan = plan
        devices = plan.workers.devices
        self._device = resolve(devices[0] if devices else "auto")

    @cached_property
    def _images(self) -> Images:
        """The images, normalised as for trainings on everything."""
        return open_images(self._plan.data, self._plan.seed, everything=True)

    def run(self, found: Sequence[Trained]) -> list[Evaluation]:
        """The evaluations of all that were trained, written down where they are new."""
        evaluations = []
        for each in found:
            if each.result["outcome"] != "trained":
                say(f"{each.id}: {each.result['outcome']}, nothing to judge")
                continue
            evaluation = _kept(self._directory, each, self._plan)
            if evaluation is None:
                evaluation = self._judge_as_task(each)
            evaluations.append(evaluation)
        return evaluations

    def _judge_as_task(self, each: Trained) -> Evaluation:
        """Judge in a Prefect task, but in this thread, since speed is measured."""

        def evaluation(id: str) -> Evaluation:
            return self._judge(each)

        return attempt_task(evaluation, "evaluation-{id}")(each.id)

    def _judge(self, each: Trained) -> Evaluation:
        plan, result, images = self._plan, each.result, self._images
        if images.facts.fingerprint != result["data"]["fingerprint"]:
            raise SearchError(
                f"the images of data.root are not those that {each.id} was trained on: restore "
                "them, or train again"
            )
        larger = plan.evaluation.larger
        evaluation = judge(
            load_weights(each.weights)[0],
            result,
            id=each.id,
            test=images.test_batches(self._device, None),
            larger=images.test_batches(self._device, larger) if larger else None,
            device=self._device,
            settings=plan.evaluation,
        )
        evaluation["settings"] = asdict(plan.evaluation)
        path = _path(self._directory, each)
        path.parent.mkdir(exist_ok=True)
        write_json(evaluation, path)
        say(f"{each.id}: {evaluation['test']['top1']['value']:.2f} % of the test images")
        return evaluation


def _kept(directory: Path, each: Trained, plan: Plan) -> Evaluation | None:
    """The evaluation in the run's directory, unless it is damaged or of other settings."""
    try:
        found: Evaluation = read_json(_path(directory, each))
        same = as_json(found["settings"]) == as_json(asdict(plan.evaluation))
        return found if same and found["identity"] == each.result["identity"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(directory: Path, each: Trained) -> Path:
    return directory / EVALUATIONS / f"{each.id}.json"
