"""Final trainings as a Prefect flow: one task a training, each waiting in a thread for a process.

First the search's best blocks are trained and ranked on held-out images, then the winner, further
blocks and the networks they are compared with are trained on all training images, once a seed. What
was done is what lies in the trainings' directories; the flow resumes by being run again.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Literal

from prefect import flow

from blockqnn.errors import SearchError
from blockqnn.params import load_plan
from blockqnn.storage import as_search_error
from blockqnn.training.devices import usable_cores
from blockqnn.training.final.result import read_result
from blockqnn.workers.training_processes import Result, TrainingDied, TrainingProcesses
from evaluation.stages.selection import WINNER, write_selection
from flows.attempts import AttemptQueue
from flows.final_trainings import PlannedTrainings, Step
from flows.interruption import raise_if_interrupted
from flows.prefect_pages.run_form import PlanName, PlanSettings, Profile
from flows.prefect_pages.run_page import Publisher, page_of
from flows.runs import open_run, run_directory, runs_directory
from flows.terminal.training_progress import TrainingProgress
from flows.terminal.training_tables import outcome_in_words, training_table
from flows.tracking.background import BackgroundWriter
from flows.tracking.trainings import TrainingRuns

Check = Literal["full", "quick"]

RETRY_DELAYS = [1.0, 5.0, 30.0]
"""Seconds before each further attempt at a training whose process was lost."""

TRACKING_PATIENCE = 120.0
"""Seconds that MLflow gets at the end, mostly to take in the networks."""

POLL = 1.0
"""Seconds between two looks at how far the trainings are."""


@flow(name="blockqnn", flow_run_name="train-{data}", persist_result=False, retries=0)
def train(
    data: PlanName = "digits",
    name: str | None = None,
    profile: Profile = None,
    overrides: PlanSettings = {},  # noqa: B006, as nobody changes it: Prefect shows it
    params: str = "params.yaml",
    runs: str | None = None,
    step: Step = "all",
    networks: list[str] | None = None,
    winner: str | None = None,
    check: Check = "full",
    wait: bool = False,
) -> list[dict[str, Any]]:
    """Train the networks of a plan, or go on with it; returns a table, one row a training.

    Args:
        data: the plan, a section under `training` of the params file.
        name: the run's name and its directory under `runs`; null for train-DATA.
        profile: a file under profiles/ laid over the params file; null for none.
        overrides: settings that differ from the profile: by section, or by dotted names such as
            {"recipe.epochs": 3}.
        params: the params file.
        runs: directory of all runs, beside the MLflow database; null for the usual one.
        step: selection ranks the search's best blocks, final trains on all training images.
        networks: final trainings of these alone: winner, or blocks and models of the plan.
        winner: a selection.json to take the winner from; null for the run's own.
        check: full reads each image on disk once before the first training, quick one a class.
        wait: let another process that has this run finish, instead of failing.
    """
    plan = load_plan(Path(params), data, profile, overrides)
    home = Path(runs) if runs else runs_directory()
    name, directory = run_directory(home, name, data)
    trainings = TrainingProcesses(plan.workers)
    planned = PlannedTrainings(directory, home, plan, data, Path(winner) if winner else None)
    planned.chosen(networks)
    if plan.data.streamed and check == "full":
        from blockqnn.data.streamed.check import check_images  # timm takes a second to import

        check_images(plan.data, home, usable_cores())
    with open_run(directory, wait):
        with as_search_error(directory):
            work = planned.work(step, networks)
        contenders = [place for each in work.contenders for place in each.directories]
        later = plan.seeds if work.then_winner else 0
        progress = TrainingProgress(name, len(contenders) + len(work.others) + later)
        with ExitStack() as stack:
            writer = None
            if plan.tracking:
                writer = BackgroundWriter(TrainingRuns(directory, name, home))
                stack.callback(writer.close, TRACKING_PATIENCE)
            publisher = stack.enter_context(closing(Publisher(name)))
            stack.enter_context(closing(progress))
            # they are closed first: Prefect's threads, which wait for them, end with that
            stack.enter_context(closing(trainings))
            loop = _TrainingLoop(trainings, progress, writer)

            def select() -> list[Path]:
                with as_search_error(directory):
                    write_selection(directory, work.search, work.contenders, loop.results)
                    return planned.final(WINNER) if work.then_winner else []

            table = training_table(loop.run(contenders, work.others, select))
            publisher.publish(page_of({"Final trainings": table}))
        return table


class _TrainingLoop:
    """Keeps every slot busy until all trainings have ended."""

    def __init__(
        self,
        trainings: TrainingProcesses,
        progress: TrainingProgress,
        writer: BackgroundWriter | None,
    ) -> None:
        self.results: dict[Path, Result] = {}
        self._slots = trainings.slots
        self._progress = progress
        self._writer = writer
        self._lost: list[tuple[Path, TrainingDied]] = []
        self._attempts: AttemptQueue[Path, Result, TrainingDied] = AttemptQueue(
            trainings.train,
            "training-{directory.name}",
            TrainingDied,
            RETRY_DELAYS,
            say=lambda result, directory: outcome_in_words(result),
        )

    def run(
        self, first: Sequence[Path], others: Iterable[Path], then: Callable[[], list[Path]]
    ) -> list[Result]:
        """Train the jobs in these directories; returns all results in the order of the jobs.

        When all `first` ones have a result, `then` names more, which go before those still waiting.
        Raises `SearchError`, after the others have ended, for one whose attempts were all lost.
        """
        attempts = self._attempts
        order = [*first, *others]
        waiting = deque(order)
        selected = not first
        while waiting or attempts.running or not selected:
            raise_if_interrupted()
            while waiting and attempts.running < self._slots:
                self._submit(waiting.popleft())
            if attempts.running:
                try:
                    self._end(*attempts.take(POLL))
                except queue.Empty:
                    if self._progress.update():
                        self._track()
                    continue
            if not selected and all(directory in self.results for directory in first):
                selected = True
                more = then()
                waiting.extendleft(reversed(more))
                order[len(first) : len(first)] = more
            elif not waiting and not attempts.running:
                break  # one of the first was lost
        if self._lost:
            directory, error = self._lost[0]
            raise SearchError(
                f"training {directory.name} lost its process {len(RETRY_DELAYS) + 1} times "
                f"({error}); mend that, then give the same command again"
            )
        return [self.results[directory] for directory in order]

    def _submit(self, directory: Path) -> None:
        if (result := read_result(directory)) is not None:
            self._end(directory, result, " (done before)")
        else:
            self._progress.begin(directory)
            self._attempts.submit(directory, directory)

    def _end(self, directory: Path, result: Result | TrainingDied, remark: str = "") -> None:
        if isinstance(result, TrainingDied):  # its attempts are used up; the others go on
            self._lost.append((directory, result))
            self._progress.end(directory, f"lost: {result}")
            return
        self.results[directory] = result
        self._track()
        self._progress.end(directory, outcome_in_words(result) + remark)

    def _track(self) -> None:
        if self._writer is not None:
            self._writer.request()
