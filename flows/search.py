"""The search as a Prefect flow: one task a candidate, each waiting in a thread for a worker.

Prefect knows what is running and tries again; what was done is the journal's business alone, so
results are neither persisted nor cached here. The flow resumes by being run again with the same
parameters.
"""

import math
import queue
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import Task as PrefectTask
from prefect import flow
from prefect.futures import PrefectFuture

from blockqnn.errors import SearchError, UserError
from blockqnn.params import load_settings
from blockqnn.search import Search
from blockqnn.search.candidate_files import candidate_directory
from blockqnn.search.history import History
from blockqnn.search.outcome import Outcome
from blockqnn.search.records import Candidate
from blockqnn.settings import InlineSettings, Settings
from blockqnn.workers.open import open_workers
from blockqnn.workers.protocol import WorkerDied, Workers
from evaluation.after_search import BEST, write_pictures
from evaluation.best_table import best_table
from flows.artifacts import Publisher
from flows.attempts import attempt_task
from flows.interruption import raise_if_interrupted
from flows.runs import announce_holder, runs_directory, search_directory
from flows.terminal.search_progress import Progress
from flows.tracking.background import BackgroundWriter
from flows.tracking.searches import SearchRuns

RETRY_DELAYS = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
"""Seconds before each further attempt; the last one holds from then on."""

LOOK = 2.0
"""Seconds between two looks at how many workers there are."""

Rule = dict[str, Any]
"""A `StoppingRule` as plain values."""

SIMPLEST = "(1,7,0,0,0)"
"""A block that every worker can train."""


@flow(name="blockqnn", flow_run_name="search-{name}", persist_result=False, retries=0)
def search(
    name: str = "demo",
    profile: str | None = "demo",
    overrides: dict[str, Any] | None = None,
    params: str = "params.yaml",
    runs: str | None = None,
    wait: bool = False,
) -> dict[str, Any]:
    """Search for blocks, or go on with the search of that name; returns its summary.

    Args:
        name: the search's name and its directory under `runs`.
        profile: a file under profiles/ laid over the params file; null for none.
        overrides: single settings, dotted names to values, say {"recipe.epochs": 3}.
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
        writer = None
        if settings.tracking:
            writer = BackgroundWriter(SearchRuns(directory, name, home, opened))
        progress = Progress(name, opened)
        publisher = Publisher(name)
        workers = open_workers(settings, directory)
        try:
            _CandidateLoop(opened, workers, progress, publisher, writer).run()
        finally:
            workers.close()  # Prefect's threads, which wait for them, end with that
            progress.close()
            publisher.close()
            if writer is not None:
                writer.close()
        write_pictures(opened, directory, name)
        return summary(opened)


def summary(history: History) -> dict[str, Any]:
    """What a finished search comes to, in plain values."""
    best = history.best(1)
    return {
        "candidates": len(history.results),
        "trained": sum(r.outcome.kind == "trained" and r.same_as is None for r in history.results),
        "best_reward": best[0].reward if best else None,
        "best_accuracy": best[0].outcome.accuracy if best else None,
        "best_code": str(best[0].candidate.block) if best else None,
    }


class _CandidateLoop:
    """Keeps every worker busy until the search is finished."""

    def __init__(
        self,
        opened: Search,
        workers: Workers,
        progress: Progress,
        publisher: Publisher,
        writer: BackgroundWriter | None,
    ) -> None:
        self._search = opened
        self._workers = workers
        self._progress = progress
        self._publisher = publisher
        self._writer = writer
        self._ended: queue.SimpleQueue[tuple[Candidate, PrefectFuture[Any]]] = queue.SimpleQueue()
        self._running = 0
        self._workers_work = False
        self._lost: list[tuple[Candidate, WorkerDied]] = []
        self._tried_alone: set[int] = set()
        self._task = _candidate_task(workers.train, opened.settings)

    def run(self) -> None:
        """Ask, train, tell, until the schedule is done."""
        search, iteration = self._search, self._search.iteration
        while not search.finished:
            raise_if_interrupted()
            while self._running < self._workers.slots and (candidate := search.ask()) is not None:
                self._submit(candidate)
            if self._running:
                try:
                    self._take(*self._ended.get(timeout=LOOK))
                except queue.Empty:  # there may be room for more by now
                    continue
            elif not search.finished:  # asking settled the last ones: blocks scored before
                self._settle_lost()
            self._progress.update(search)
            if search.iteration != iteration:
                iteration = search.iteration
                self._publish()

    def _submit(self, candidate: Candidate, alone: bool = False) -> None:
        rule = self._search.stopping_rule(candidate)
        future = self._task.submit(
            candidate.number, str(candidate.block), alone, rule.to_dict() if rule else None
        )
        self._running += 1
        future.add_done_callback(lambda done: self._ended.put((candidate, done)))

    def _take(self, candidate: Candidate, future: PrefectFuture[Any]) -> None:
        self._running -= 1
        try:
            outcome = future.result()
        except WorkerDied as error:  # its attempts are used up; the others go on
            if not self._workers_work:
                self._probe(candidate, error)
            self._lost.append((candidate, error))
            return
        except UserError:
            raise
        except Exception as error:  # Prefect's trouble, say, which must not teach the agent
            raise SearchError(
                f"candidate {candidate.number} could not be trained, and not by its own fault "
                f"({type(error).__name__}: {error}); start the same search again"
            ) from error
        self._workers_work = True
        self._search.tell(candidate, outcome)
        self._workers.forget(candidate.number)
        if self._writer is not None:
            self._writer.request()

    def _probe(self, candidate: Candidate, error: WorkerDied) -> None:
        """Train the simplest block: where not even that comes through, the workers are at fault,
        and they may not teach the agent anything.
        """
        number = self._search.total  # no candidate's, whose checkpoint may be worth keeping
        try:
            self._task.submit(number, SIMPLEST, False, None).result()
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
        """Decide on a candidate that took every attempt's worker with it, when nothing else is
        left to do.

        With every worker free and all memory its own it is tried again, in case one worker or a
        neighbour was at fault. After that it is the block's doing.
        """
        if not self._lost:
            raise SearchError(
                "the search waits for outcomes that nobody is working on: start it again"
            )
        candidate, error = self._lost.pop(0)
        if candidate.number not in self._tried_alone:
            self._tried_alone.add(candidate.number)
            self._submit(candidate, alone=True)
            return
        outcome = Outcome(kind="infeasible", reason=f"every attempt failed: {error}"[:500])
        self._search.tell(candidate, outcome)
        self._workers.forget(candidate.number)

    def _publish(self) -> None:
        """One Prefect table of the best blocks and one of the progress."""
        best = best_table(self._search.best(BEST))
        self._publisher.publish(best=best, progress=[self._progress.row(self._search)])


def _candidate_task(
    train: Callable[[int, str, bool, Rule | None], Outcome], settings: Settings
) -> PrefectTask[[int, str, bool, Rule | None], Outcome]:
    """The Prefect task that trains one candidate."""
    workers = settings.workers

    def candidate(number: int, code: str, alone: bool, rule: Rule | None) -> Outcome:
        return train(number, code, alone, rule)

    retries = 0 if isinstance(workers, InlineSettings) else workers.retries
    return attempt_task(
        candidate, "candidate-{number}", lost=(WorkerDied,), retries=retries, delays=RETRY_DELAYS
    )
