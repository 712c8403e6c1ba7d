"""Search = agent + journal: ask for a candidate, tell its outcome, resume after anything.

The journal is the only state. Opening a search replays it into a new agent, which ends where the
old one was, because every random number comes from (seed, purpose, counter). In `sync` mode
outcomes enter the journal in the order of their candidates, so that the journal does not depend on
which worker was faster; an outcome that came early waits on disk beside it, and is as safe there.
"""

from __future__ import annotations

import shutil
import time
from collections import ChainMap
from pathlib import Path
from typing import Any

from blockqnn.agents import build_agent
from blockqnn.cost import Cost
from blockqnn.data import load
from blockqnn.errors import SearchError, SettingsError
from blockqnn.reward import latency_price
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
from blockqnn.search.objective import Objective
from blockqnn.search.outcome import Outcome
from blockqnn.search.pending import Pending, Waiting
from blockqnn.search.records import Candidate, Result, Task
from blockqnn.search.stopping import Stopping
from blockqnn.seeds import generator
from blockqnn.settings import Settings
from blockqnn.space import Block
from blockqnn.space.skeleton import STEM_POOLS
from blockqnn.storage import DirectoryLock, as_search_error
from blockqnn.surrogate import StoppingRule, block_features
from blockqnn.zoo import BLOCKS

__all__ = ["Candidate", "Result", "Search", "Task", "candidate_directory", "read_search"]


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
        task = Task.of(load(settings.data, settings.seed), settings.reward.metric)
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

    def __exit__(self, *_: object) -> None:
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
        while (candidate := self._waiting.next_to_train()) is None and self._may_propose():
            self._propose()
            self._repeats += 1
            self._settle()
        if candidate is not None:
            self._repeats = 0
        return candidate

    def tell(self, candidate: Candidate, outcome: Outcome) -> None:
        """Record a candidate's outcome; it is on disk when this returns.

        Raises `ValueError` for a candidate never proposed or told before, and `SearchError` when
        the disk does not take it (the candidate is pending then, and comes first at the next
        start).
        """
        number = candidate.number
        if not (0 <= number < len(self.candidates) and self.candidates[number] == candidate):
            raise ValueError(f"cannot tell candidate {number}: it was not proposed in this search")
        waiting = self._waiting.get(number)
        if waiting is None or waiting.outcome is not None:
            raise ValueError(f"cannot tell candidate {number}: it was told before")
        if outcome.expected is not None:  # a ValueError for one without a latency that it needs
            latency_price(outcome.latency, self.settings.reward.latency)
        self._waiting.tell(number, outcome)
        self._repeats = 0
        try:
            self._settle()
            if self.result(number) is None:  # its turn in the journal has not come
                place = candidate_directory(self.directory, number)
                with as_search_error(self.directory):
                    keep_outcome(place, self._identity(candidate), outcome)
        except SearchError:
            self._waiting.take_back(number)
            raise

    def stopping_rule(self, candidate: Candidate) -> StoppingRule | None:
        """The rule that may stop a candidate's training early, None for never.

        It rests on the whole iterations that have ended, so that an interrupted search has the same
        rules.
        """
        cost = self._cost(candidate.block)
        return self._stopping.rule(candidate, cost, self._objective, self.results)

    def _restore(self, settings: Settings, task: Task) -> None:
        space, agent = settings.space.build(), settings.agent
        self._agent = build_agent(
            space, agent, settings.batch, lambda block: block_features(block, self._cost(block))
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
        self._plain = self._cost(BLOCKS["plain"])
        self._objective = Objective(settings.reward, self.task.chance, self._plain)
        self._waiting = Pending(in_turn=settings.mode == "sync")
        for candidate in self.pending:
            place = candidate_directory(self.directory, candidate.number)
            self._enter(candidate, kept_outcome(place, self._identity(candidate)))
        if len(self.candidates) % self._together:
            self._propose()  # a crash tore the batch of proposals: draw the missing ones
        self._settle()
        self._clean()

    @property
    def _together(self) -> int:
        """Candidates that are proposed and learned from together: an iteration's, or one."""
        return self.settings.batch if self.settings.mode == "sync" else 1

    def _add(self, record: Record) -> None:
        super()._add(record)
        together = self._together
        if len(self.results) % together == 0:
            finished = [(r.candidate.block, r.reward) for r in self.results[-together:]]
            number = len(self.results) // together - 1
            self._agent.learn_from(finished, generator(self.settings.seed, "replay", number))

    def _may_propose(self) -> bool:
        pending, training = len(self._pending), len(self._waiting.keys)
        if self.settings.mode == "sync":
            waits = pending > 0
        else:  # a greedy agent may name blocks in training for ever: that many more at most
            waits = pending - training >= max(self.settings.batch, training)
            # Repeats take no time: the whole schedule of a small space would pass without news.
            waits |= training > 0 and self._repeats >= self.settings.batch
        return not waits and len(self.candidates) < self.total

    def _propose(self) -> None:
        """Propose a candidate; in sync mode the rest of the iteration."""
        records: list[Record] = []
        first = len(self.candidates)
        begin = first - first % self._together
        iteration = self.iteration
        epsilon = self.schedule.at(iteration)
        fresh: dict[str, int] = {}
        taken = ChainMap[str, Any](fresh, self._by_key)
        if self.settings.mode == "async":  # in sync mode, nothing of earlier iterations waits
            taken.maps.append(self._waiting.keys)
        for number in range(begin, begin + self._together):
            rng = generator(self.settings.seed, "proposal", number)
            block = self._agent.propose(epsilon, rng, taken)
            if number < first:  # a crash tore the batch: an agent's plan is that of its beginning
                fresh[self.candidates[number].key] = number
                continue
            fresh[block.key] = number
            turn = {"type": "proposal", "number": number, "iteration": iteration}
            proposed = {"epsilon": epsilon, "code": str(block), "key": block.key}
            records.append({**turn, **proposed, "time": time.time()})
        self._append(records)
        for candidate in self.candidates[first:]:
            self._enter(candidate)

    def _enter(self, candidate: Candidate, kept: Outcome | None = None) -> None:
        """Let a candidate wait, with its outcome if that is known: on disk it was `kept`."""
        if earlier := self.result_of(candidate.key):  # the same graph: the same cost
            number = earlier.candidate.number
            self._waiting.add(Waiting(candidate, earlier.cost, earlier.outcome, same_as=number))
            return
        cost = self._cost(candidate.block)
        if reason := over_budget(cost, self.settings.budget, self.settings.recipe, self._plain):
            kept = Outcome(kind="infeasible", reason=reason)
        self._waiting.add(Waiting(candidate, cost, kept))

    def _settle(self) -> None:
        """Journal every candidate that is ready, and those that become so by that."""
        while ready := self._waiting.ready():
            self._append([self._record_of(waiting) for waiting in ready])
            for waiting in ready:
                self._waiting.recorded(waiting)
                place = candidate_directory(self.directory, waiting.candidate.number)
                shutil.rmtree(place, ignore_errors=True)

    def _clean(self) -> None:
        """Remove the work on recorded candidates, which a kill may have left behind."""
        pending = {candidate_directory(self.directory, number) for number in self._pending}
        for path in (self.directory / "candidates").glob("*"):
            if path not in pending:
                shutil.rmtree(path, ignore_errors=True)

    def _record_of(self, waiting: Waiting) -> Record:
        assert waiting.outcome is not None
        value = self._objective.reward(waiting.outcome, waiting.candidate.block, waiting.cost)
        return outcome_record(waiting, value, time.time())

    def _cost(self, block: Block) -> Cost:
        task = self.task
        shape = {"in_channels": task.in_channels, "image_size": task.image_size}
        return self.settings.network.cost(block, num_classes=task.num_classes, **shape)

    def _identity(self, candidate: Candidate) -> str:
        return identity(candidate.block, self.settings, self.task.fingerprint)

    def _append(self, records: list[Record]) -> None:
        """Write records to the journal and take them in; `SearchError` when the disk is full."""
        assert self._journal is not None
        with as_search_error(self.directory):
            self._journal.append(records)
        for record in records:
            self.apply(record)


def _check_image_size(settings: Settings, task: Task) -> None:
    pools = len(settings.network.filters) - 1 + STEM_POOLS[settings.network.skeleton]
    if task.image_size >> pools == 0:
        raise SettingsError(
            f"network.filters is {settings.network.filters!r}: {pools} poolings leave nothing of "
            f"images of {task.image_size} pixels; give fewer stages or larger images"
        )
