"""The search as a Prefect flow: one task a candidate, each waiting in a thread for a worker.

Prefect knows what is running and tries again; what was done is the journal's business alone, so
results are neither persisted nor cached here. The flow resumes by being run again with the same
parameters.
"""

import math
import queue
import shutil
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow

from blockqnn.errors import SearchError
from blockqnn.params import load_settings
from blockqnn.search import Search
from blockqnn.search.candidate_files import candidate_directory
from blockqnn.search.history import History
from blockqnn.search.outcome import Outcome
from blockqnn.search.records import Candidate
from blockqnn.workers.open import open_workers
from blockqnn.workers.protocol import CandidateTask, WorkerDied, Workers, candidate_task, task_of
from evaluation.after_search import BEST, CURVE, write_pictures
from evaluation.candidates.best_table import best_table
from flows.attempts import AttemptQueue
from flows.interruption import raise_if_interrupted
from flows.prefect_pages.run_form import Profile, SearchSettings
from flows.prefect_pages.run_page import Publisher, page_of
from flows.runs import announce_holder, runs_directory, search_directory
from flows.terminal.search_progress import Progress
from flows.tracking.background import BackgroundWriter
from flows.tracking.records import experiment_id
from flows.tracking.records import page_of as mlflow_page
from flows.tracking.searches import SearchRuns

RETRY_DELAYS = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
"""Seconds before each further attempt at a candidate; the last one holds from then on."""

LOOK = 2.0
"""Seconds between two looks at how many workers there are."""

COLUMNS = ("rank", "number", "accuracy", "reward", "MMACs", "parameters", "seconds", "code")
"""Columns of the table of best blocks that fit a page in Prefect."""

SIMPLEST = "(1,7,0,0,0)"
"""The code of a block that every worker can train."""


@flow(name="blockqnn", flow_run_name="search-{name}", persist_result=False, retries=0)
def search(
    name: str = "demo",
    profile: Profile = "demo",
    overrides: SearchSettings = {},  # noqa: B006, as nobody changes it: Prefect shows it
    params: str = "params.yaml",
    runs: str | None = None,
    wait: bool = False,
) -> dict[str, Any]:
    """Search for blocks, or go on with the search of that name; returns its summary.

    Args:
        name: the search's name and its directory under `runs`.
        profile: a file under profiles/ laid over the params file; null for none.
        overrides: settings that differ from the profile: by section, or by dotted names such as
            {"recipe.epochs": 3}.
        params: the params file.
        runs: directory of all searches, beside the MLflow database; null for the usual one.
        wait: let another process that runs this search finish, instead of failing.
    """
    settings = load_settings(Path(params), profile, overrides)
    home = Path(runs) if runs else runs_directory()
    directory = search_directory(home, name)
    if wait:
        announce_holder(directory)
    with Search.open(directory, settings, wait=math.inf if wait else 0.0) as opened:
        with ExitStack() as stack:
            writer = None
            if settings.tracking:
                writer = BackgroundWriter(SearchRuns(directory, name, home, opened))
                stack.callback(writer.close)
            publisher = stack.enter_context(closing(Publisher(name)))
            progress = stack.enter_context(closing(Progress(name, opened)))
            # the workers are closed first: Prefect's threads, which wait for them, end with that
            workers = stack.enter_context(closing(open_workers(settings, directory)))
            publish = partial(_publish, publisher, progress, home, name)
            _CandidateLoop(opened, workers, progress, publish, writer).run()
            write_pictures(opened, directory, name)
            publish(opened)
        return summary(opened)


def _publish(
    publisher: Publisher, progress: Progress, runs: Path, name: str, history: History
) -> None:
    """Put what a search has come to on its page in Prefect."""
    experiment, link = experiment_id(name, runs), ""
    if experiment is not None:
        page = mlflow_page(experiment, "http://127.0.0.1:5000")
        link = f"[Every candidate in MLflow]({page}), where `blockqnn serve` runs."
    best = [{column: row[column] for column in COLUMNS} for row in best_table(history.best(BEST))]
    tables = {"Progress": [progress.row(history)], "Best so far": best}
    publisher.publish(page_of(tables, link, search_directory(runs, name) / CURVE))


def summary(history: History) -> dict[str, Any]:
    """What a search came to, in plain values; the best accuracy and reward are in percent."""
    best = history.best(1)
    return {
        "candidates": len(history.results),
        "trained": sum(r.outcome.kind == "trained" and r.same_as is None for r in history.results),
        "best_reward": best[0].reward if best else None,
        "best_accuracy": best[0].outcome.accuracy if best else None,
        "best_code": str(best[0].candidate.design) if best else None,
    }


class _CandidateLoop:
    """Keeps every worker busy until the search is finished."""

    def __init__(
        self,
        opened: Search,
        workers: Workers,
        progress: Progress,
        publish: Callable[[History], None],
        writer: BackgroundWriter | None,
    ) -> None:
        self._search = opened
        self._workers = workers
        self._progress = progress
        self._publish = publish
        self._writer = writer
        self._workers_work = False
        self._lost: list[tuple[Candidate, WorkerDied]] = []
        self._tried_alone: set[int] = set()
        retries = getattr(opened.settings.workers, "retries", 0)  # inline, nothing can be lost
        self._attempts: AttemptQueue[int, Outcome, WorkerDied] = AttemptQueue(
            workers.train, "candidate-{task[number]}", WorkerDied, RETRY_DELAYS, retries, self._say
        )

    def run(self) -> None:
        """Ask, train, tell, until the schedule is done."""
        search, attempts, iteration = self._search, self._attempts, self._search.iteration
        while not search.finished:
            raise_if_interrupted()
            while attempts.running < self._workers.slots and (candidate := search.ask()):
                self._submit(candidate)
            if attempts.running:
                try:
                    self._end(*attempts.take(LOOK))
                except queue.Empty:  # there may be room for more by now
                    continue
            elif not search.finished:  # asking settled the last ones: blocks scored before
                self._settle_lost()
            self._progress.update(search)
            if search.iteration != iteration:
                iteration = search.iteration
                self._publish(search)

    def _say(self, outcome: Outcome, task: CandidateTask) -> str:
        """What became of a candidate, for its task run in Prefect."""
        if outcome.expected is None:
            return f"{outcome.kind}: {outcome.reason}"
        reward = self._search.reward(task["number"], outcome)
        return f"{outcome.kind}, accuracy {outcome.expected:.2f} %, reward {reward:.2f}"

    def _submit(self, candidate: Candidate, alone: bool = False) -> None:
        rule = self._search.stopping_rule(candidate)
        self._attempts.submit(candidate.number, {**task_of(candidate, rule), "alone": alone})

    def _end(self, number: int, outcome: Outcome | WorkerDied) -> None:
        candidate = self._search.candidates[number]
        if isinstance(outcome, WorkerDied):  # its attempts are used up; the others go on
            if not self._workers_work:
                self._probe(candidate, outcome)
            self._lost.append((candidate, outcome))
            return
        self._workers_work = True
        self._tell(candidate, outcome)
        if self._writer is not None:
            self._writer.request()

    def _tell(self, candidate: Candidate, outcome: Outcome) -> None:
        self._search.tell(candidate, outcome)
        for number in self._search.released():
            self._workers.forget(number)

    def _probe(self, candidate: Candidate, error: WorkerDied) -> None:
        """Train the simplest block: where not even that comes through, the workers are at fault,
        and they may not teach the agent anything. Raises `SearchError` then.
        """
        number = self._search.total  # no candidate's, whose checkpoint may be worth keeping
        try:
            self._attempts.task.submit(candidate_task(number, SIMPLEST)).result()
        except WorkerDied:
            raise SearchError(
                f"no block comes through: candidate {candidate.number} failed every attempt "
                f"({error}), and so did the simplest block; mend the workers, then start the same "
                "search again"
            ) from None
        finally:
            shutil.rmtree(candidate_directory(self._search.directory, number), ignore_errors=True)
            self._workers.forget(number)
        self._workers_work = True

    def _settle_lost(self) -> None:
        """Decide on a candidate whose attempts were all lost, when nothing else is left to do.

        With every worker free and all memory its own it is tried again, in case one worker or a
        neighbour was at fault. After that the block is, and the candidate is infeasible.
        """
        if not self._lost:
            raise SearchError(
                "the search waits for outcomes that nobody is working on: start it again"
            )
        candidate, error = self._lost.pop(0)
        if candidate.number not in self._tried_alone:
            self._tried_alone.add(candidate.number)
            self._submit(candidate, alone=True)
        else:
            reason = f"every attempt failed: {error}"[:500]
            self._tell(candidate, Outcome(kind="infeasible", reason=reason))
