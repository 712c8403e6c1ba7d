"""Search = agent + journal: ask for a candidate, tell its outcome, resume after anything.

The journal is the only state. Opening a search replays it into a new agent, which ends where the
old one was, because every random number comes from (seed, purpose, counter). In `sync` mode
outcomes enter the journal in the order of their candidates, so that the journal does not depend on
which worker was faster; one that came early waits on disk beside it, and is as safe there.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections import ChainMap, deque
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blockqnn.agents import build_agent
from blockqnn.cost import Cost
from blockqnn.data import load
from blockqnn.errors import SearchError, SettingsError
from blockqnn.reward import latency_price, parameters_price, reward
from blockqnn.search.budget import over_budget
from blockqnn.search.candidate_files import (
    candidate_directory,
    identity,
    keep_outcome,
    kept_outcome,
)
from blockqnn.search.changes import refuse_changes
from blockqnn.search.history import JOURNAL, History, begin_record, outcome_record, read_search
from blockqnn.search.journal import Journal, Record
from blockqnn.search.outcome import Outcome
from blockqnn.search.records import Candidate, Result, Task
from blockqnn.search.stopping import Stopping
from blockqnn.seeds import generator
from blockqnn.settings import Settings
from blockqnn.space import Block
from blockqnn.storage import DirectoryLock, as_search_error
from blockqnn.surrogate import StoppingRule, block_features

__all__ = ["Candidate", "Result", "Search", "Task", "candidate_directory", "read_search"]

log = logging.getLogger(__name__)


class Search(History):
    """A search open for writing. Use it in a `with` statement; one process at a time.

    Not for several threads at once: the caller hands outcomes over one by one.
    """

    def __init__(self, directory: Path, lock: DirectoryLock) -> None:
        """Use `Search.open`."""
        super().__init__()
        self.directory = directory
        self._lock = lock
        self._journal: Journal | None = None
        self._arrived: dict[int, Outcome] = {}
        self._queue: deque[Candidate] = deque()
        self._costs: dict[int, Cost] = {}
        self._sharing: dict[str, list[int]] = {}
        """Numbers of the pending candidates by their key, ascending."""
        self._due: set[int] = set()
        """Numbers of the pending candidates whose outcome may be known since `_settle` looked."""
        self._repeats = 0
        """Proposals in a row that brought nothing to train, since an outcome was told."""

    @classmethod
    def open(cls, directory: Path | str, settings: Settings, *, wait: float = 0.0) -> Search:
        """Begin a search in `directory`, or continue the one that is there.

        Another process that has it open is given `wait` seconds to finish. Raises `SearchError`
        when it has not, the journal is damaged, settings that change the meaning of its results
        differ, or the directory cannot be written; `SettingsError` when the data are missing.
        """
        directory = Path(directory)
        task = Task.of(load(settings.data, settings.seed))
        _check_image_size(settings, task)
        with as_search_error(directory):
            directory.mkdir(parents=True, exist_ok=True)
            search = cls(directory, DirectoryLock(directory, wait=wait))
        try:
            search._restore(settings, task)
        except BaseException:
            search.close()
            raise
        return search

    def __enter__(self) -> Search:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the journal and let the next process in."""
        if self._journal is not None:
            self._journal.close()
        self._lock.release()

    def ask(self) -> Candidate | None:
        """The next candidate to train, those left over from before first.

        None when there is nothing to hand out: the iteration waits for outcomes, or the search is
        finished. Blocks already scored and blocks over budget are settled here and never handed
        out.
        """
        while not self._queue and self._may_propose():
            self._propose()
            self._repeats = 0 if self._queue else self._repeats + 1
            self._settle()
        return self._queue.popleft() if self._queue else None

    def tell(self, candidate: Candidate, outcome: Outcome) -> None:
        """Record a candidate's outcome; it is on disk when this returns.

        Raises `ValueError` for a candidate never proposed or told before, and `SearchError` when
        the disk does not take it (the candidate is pending then, and comes first at the next
        start).
        """
        number = candidate.number
        if not (0 <= number < len(self.candidates) and self.candidates[number] == candidate):
            raise ValueError(f"cannot tell candidate {number}: it was not proposed in this search")
        if self.result(number) or number in self._arrived:
            raise ValueError(f"cannot tell candidate {number}: it was told before")
        if outcome.expected is not None:  # a ValueError for one without a latency that it needs
            latency_price(outcome.latency, self.settings.reward.latency)
        self._arrived[number] = outcome
        self._due.add(number)
        self._repeats = 0
        try:
            self._settle()
            if self.result(number) is None:  # its turn in the journal has not come
                self._keep_early(candidate, outcome)
        except SearchError:
            self._arrived.pop(number, None)
            raise

    def stopping_rule(self, candidate: Candidate) -> StoppingRule | None:
        """By what to stop a candidate's training early, None for never.

        It rests on the whole iterations that have ended, so that an interrupted search has the same
        rules.
        """
        cost = self._cost(candidate)
        costs = -self._reward(0.0, candidate, cost)
        return self._stopping.rule(candidate, cost, costs, self.results)

    def _restore(self, settings: Settings, task: Task) -> None:
        self._agent = build_agent(
            settings.space.build(), settings.agent, settings.batch, self._features
        )

        def take(record: Record) -> None:
            self.apply(record)
            if record["type"] in ("begin", "settings"):
                refuse_changes(self.directory, self.settings, settings, self.task, task)

        with as_search_error(self.directory):
            self._journal = Journal(self.directory / JOURNAL, take)
        if not self.begun:
            self._append([begin_record(settings, task, time.time())])
        elif settings.schedule != self.settings.schedule:
            changed = {"type": "settings", "settings": settings.to_dict(), "time": time.time()}
            self._append([changed])
        self.settings = settings
        self._stopping = Stopping(settings)
        for candidate in self.pending:
            early = self._read_early(candidate)
            if early is not None:
                self._arrived[candidate.number] = early
        self._enter(self.pending)
        if self.settings.mode == "sync" and len(self.candidates) % self.settings.batch:
            self._propose()  # a crash tore the batch of proposals: draw the missing ones
        self._settle()
        self._clean()

    def _add(self, record: Record) -> None:
        super()._add(record)
        together = self.settings.batch if self.settings.mode == "sync" else 1
        if len(self.results) % together == 0:
            finished = [(r.candidate.block, r.reward) for r in self.results[-together:]]
            number = len(self.results) // together - 1
            self._agent.learn_from(finished, generator(self.settings.seed, "replay", number))

    def _may_propose(self) -> bool:
        if self.settings.mode == "sync":
            waits = bool(self._pending)
        else:  # a greedy agent may name blocks in training for ever: that many more at most
            training = len(self._sharing)
            waits = len(self._pending) - training >= max(self.settings.batch, training)
            # Repeats take no time: the whole schedule of a small space would pass without news.
            waits |= training > 0 and self._repeats >= self.settings.batch
        return not waits and len(self.candidates) < self.total

    def _propose(self) -> None:
        """Propose a candidate; in sync mode the rest of the iteration."""
        records: list[Record] = []
        begin = first = len(self.candidates)
        iteration, count = self.iteration, 1
        fresh: dict[str, int] = {}
        taken = ChainMap[str, Any](fresh, self._sharing, self._by_key)
        if self.settings.mode == "sync":
            count = self.settings.batch
            begin -= first % count
            taken = ChainMap[str, Any](fresh, self._by_key)  # nothing is in training
        epsilon = self.schedule.at(iteration)
        for number in range(begin, begin + count):
            rng = generator(self.settings.seed, "proposal", number)
            block = self._agent.propose(epsilon, rng, taken)
            if number < first:  # a crash tore the batch: an agent's plan is that of its beginning
                block = self.candidates[number].block
                fresh[block.key] = number
                continue
            fresh[block.key] = number
            records.append(
                {
                    "type": "proposal",
                    "number": number,
                    "iteration": iteration,
                    "epsilon": epsilon,
                    "code": str(block),
                    "key": block.key,
                    "time": time.time(),
                }
            )
        self._append(records)
        self._enter(self.candidates[first:])

    def _enter(self, candidates: list[Candidate]) -> None:
        """Queue those of new pending candidates that have to be trained, in order."""
        for candidate in candidates:
            self._sharing.setdefault(candidate.key, []).append(candidate.number)
            self._due.add(candidate.number)
            if self._needs_training(candidate):
                self._queue.append(candidate)

    def _needs_training(self, candidate: Candidate) -> bool:
        """Whether no other candidate's outcome, and no look at its cost, settles a candidate."""
        if candidate.number in self._arrived or self.result_of(candidate.key) is not None:
            return False
        if self._reason_against(candidate):
            return False
        return self._sharing[candidate.key][0] == candidate.number

    def _settle(self) -> None:
        """Journal every pending candidate whose outcome is known, in order.

        In sync mode the first one not known stops it.
        """
        while records := self._due_records():
            self._append(records)
            for record in records:
                self._forget(self.candidates[record["number"]])
        self._due.clear()

    def _due_records(self) -> list[Record]:
        """Records of outcomes that may go to the disk together: none shares a training with one
        before it.
        """
        sync = self.settings.mode == "sync"
        numbers = self._pending if sync else sorted(self._due)
        records: list[Record] = []
        keys: set[str] = set()
        for number in numbers:
            candidate = self.candidates[number]
            record = None if candidate.key in keys else self._record_of(candidate)
            if record is not None:
                records.append(record)
                if "same_as" not in record:
                    keys.add(candidate.key)
            elif sync:
                break
        return records

    def _forget(self, candidate: Candidate) -> None:
        """Let go of what was kept for a pending candidate; those that share its block are due."""
        number = candidate.number
        self._arrived.pop(number, None)
        self._costs.pop(number, None)
        self._due.discard(number)
        sharing = self._sharing[candidate.key]
        sharing.remove(number)
        self._due.update(sharing)
        if not sharing:
            del self._sharing[candidate.key]
        shutil.rmtree(candidate_directory(self.directory, number), ignore_errors=True)

    def _clean(self) -> None:
        """Remove the work on candidates that are not pending: a kill came before that was done."""
        pending = {candidate_directory(self.directory, number) for number in self._pending}
        for path in (self.directory / "candidates").glob("*"):
            if path not in pending:
                shutil.rmtree(path, ignore_errors=True)

    def _record_of(self, candidate: Candidate) -> Record | None:
        earlier = self.result_of(candidate.key)
        if earlier is not None:  # the same graph: the same cost
            outcome, cost = earlier.outcome, earlier.cost
        else:
            cost = self._cost(candidate)
            if reason := self._reason_against(candidate):
                outcome = Outcome(kind="infeasible", reason=reason)
            elif candidate.number in self._arrived:
                outcome = self._arrived[candidate.number]
            else:
                return None
        value = self.task.chance
        if outcome.expected is not None:
            value = self._reward(outcome.expected, candidate, cost)
            value -= latency_price(outcome.latency, self.settings.reward.latency)
        same_as = earlier.candidate.number if earlier else None
        return outcome_record(candidate, outcome, value, cost, same_as, time.time())

    def _reward(self, accuracy: float, candidate: Candidate, cost: Cost) -> float:
        """But for what the latency costs."""
        weights = self.settings.reward
        value = reward(
            accuracy,
            macs=cost.macs,
            density=candidate.block.density,
            mu=weights.mu,
            rho=weights.rho,
        )
        return value - parameters_price(cost.parameters, weights.parameters)

    def _cost(self, candidate: Candidate) -> Cost:
        if candidate.number not in self._costs:
            self._costs[candidate.number] = self._cost_of(candidate.block)
        return self._costs[candidate.number]

    def _cost_of(self, block: Block) -> Cost:
        network = self.settings.network
        return network.cost(
            block,
            num_classes=self.task.num_classes,
            in_channels=self.task.in_channels,
            image_size=self.task.image_size,
        )

    def _features(self, block: Block) -> NDArray[np.float64]:
        return block_features(block, self._cost_of(block))

    def _reason_against(self, candidate: Candidate) -> str:
        return over_budget(self._cost(candidate), self.settings.budget, self.settings.recipe)

    def _keep_early(self, candidate: Candidate, outcome: Outcome) -> None:
        with as_search_error(self.directory):
            own = identity(candidate.block, self.settings, self.task.fingerprint)
            keep_outcome(candidate_directory(self.directory, candidate.number), own, outcome)

    def _read_early(self, candidate: Candidate) -> Outcome | None:
        own = identity(candidate.block, self.settings, self.task.fingerprint)
        return kept_outcome(candidate_directory(self.directory, candidate.number), own)

    def _append(self, records: list[Record]) -> None:
        assert self._journal is not None
        with as_search_error(self.directory):
            self._journal.append(records)
        for record in records:
            self.apply(record)


def _check_image_size(settings: Settings, task: Task) -> None:
    pools = (
        len(settings.network.filters) - 1 + (2 if settings.network.skeleton == "imagenet" else 0)
    )
    if task.image_size >> pools == 0:
        raise SettingsError(
            f"network.filters is {settings.network.filters!r}: {pools} poolings leave nothing of "
            f"images of {task.image_size} pixels; give fewer stages or larger images"
        )
