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
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.random import Generator

from blockqnn.agents import build_agent
from blockqnn.cost import DeviceCost
from blockqnn.data import load
from blockqnn.errors import SearchError, SettingsError
from blockqnn.reward import latency_price
from blockqnn.search.candidate_files import (
    candidate_directory,
    identity,
    keep_outcome,
    kept_outcome,
)
from blockqnn.search.changes import refuse_changes
from blockqnn.search.costs import Costs
from blockqnn.search.history import (
    JOURNAL,
    History,
    begin_record,
    outcome_record,
    proposal_record,
    read_search,
)
from blockqnn.search.journal import Journal, Record
from blockqnn.search.objective import Objective
from blockqnn.search.outcome import Outcome
from blockqnn.search.pending import Pending, Waiting
from blockqnn.search.records import Candidate, Result, Task
from blockqnn.search.rungs import Rungs
from blockqnn.search.stopping import Stopping
from blockqnn.seeds import generator
from blockqnn.settings import Settings
from blockqnn.space import Block, ShapedBlock, parts_of
from blockqnn.space.design import Choices
from blockqnn.space.skeleton import STEM_POOLS
from blockqnn.storage import DirectoryLock, as_search_error
from blockqnn.surrogate import Array, StoppingRule, block_features
from blockqnn.training.device_prices import measured_prices

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
        self._corrected: dict[str, float] = {}
        """What networks that went on are worth on the first rung, by key."""
        self._over: list[int] = []
        """Numbers of candidates whose work is over and still on disk."""
        self._released: list[int] = []

    @classmethod
    def open(
        cls,
        directory: Path | str,
        settings: Settings,
        *,
        wait: float = 0.0,
        prices: DeviceCost | None = None,
    ) -> Search:
        """Begin a search in `directory`, or continue the one that is there.

        Another process that has it open is given `wait` seconds to finish. A search that needs the
        device's `prices` measures them when it begins unless they are given. Raises `SearchError`
        when it has not, the journal is damaged, settings that change the meaning of its results
        differ, or the directory cannot be written; `SettingsError` when the data are missing.
        """
        directory = Path(directory)
        task = Task.of(load(settings.data, settings.seed), settings.reward.metric)
        _check_image_size(settings, task)
        _check_images(settings, task)
        with as_search_error(directory):
            directory.mkdir(parents=True, exist_ok=True)
            search = cls(directory, DirectoryLock(directory, wait=wait))
        try:
            search._restore(settings, task, prices)
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

        Raises `ValueError` for a candidate never proposed or told before and for what is no outcome
        in percent, and `SearchError` when the disk does not take it (the candidate is pending then,
        and comes first at the next start).
        """
        _check_outcome(outcome, self.task.chance)
        number = candidate.number
        if not (0 <= number < len(self.candidates) and self.candidates[number] == candidate):
            raise ValueError(f"cannot tell candidate {number}: it was not proposed in this search")
        waiting = self._waiting.get(number)
        if waiting is None or waiting.outcome is not None:
            raise ValueError(f"cannot tell candidate {number}: it was told before")
        if outcome.expected is not None and self.settings.judges_measured_latency:
            # a ValueError for one without a latency that it needs
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
        cost = self._costs.of(candidate.block, candidate.shape)
        return self._stopping.rule(candidate, cost, self._objective, self.results)

    def reward(self, number: int, outcome: Outcome) -> float:
        """The reward in percent that an outcome of a candidate is worth."""
        candidate = self.candidates[number]
        cost = self._costs.of(candidate.block, candidate.shape)
        return self._objective.reward(outcome, candidate.block, cost)

    def released(self) -> list[int]:
        """The numbers of candidates whose work is over for good since this was last asked."""
        released, self._released = self._released, []
        return released

    def _restore(self, settings: Settings, task: Task, prices: DeviceCost | None) -> None:
        def take(record: Record) -> None:
            self.apply(record)
            if record["type"] in ("begin", "settings"):
                refuse_changes(self.directory, self.settings, settings, self.task, task)

        with as_search_error(self.directory):
            self._journal = Journal(self.directory / JOURNAL, take)
        if not self.begun:
            if not settings.needs_prices:
                prices = None
            elif prices is None:
                prices = prices_for(settings, task)
            self._append([begin_record(settings, task, prices, time.time())])
        elif settings.schedule != self.settings.schedule:
            changed = {"type": "settings", "settings": settings.to_dict(), "time": time.time()}
            self._append([changed])
        self.settings = settings
        self._stopping = Stopping(settings)
        predicted = settings.needs_latency and not settings.judges_measured_latency
        self._objective = Objective(
            settings.reward, self.task.chance, self._costs.plain, predicted=predicted
        )
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

    def _apply(self, kind: str, record: Record) -> None:
        super()._apply(kind, record)
        if kind == "begin":
            settings = self.settings
            self._costs = costs = Costs(settings, self.task, self.prices)
            self._rungs = Rungs(settings.rungs, settings.batch)
            space: Choices[Any] = settings.designs
            encode = partial(_features, costs)
            self._agent = build_agent(space, settings.agent, settings.batch, encode)
        elif kind == "proposal" and (candidate := self.candidates[-1]).of is not None:
            self._rungs.promoted(candidate)

    def _add(self, record: Record) -> None:
        super()._add(record)
        result, together = self.results[-1], self._together
        of = result.candidate.of
        self._over += self._rungs.add(result, None if of is None else self.result(of))
        if of is not None:
            self._over.append(of)
        if len(self.results) % together == 0:
            last = self.results[-together:]
            further = [(r.candidate.design, self._rungs.value(r)) for r in last if r.candidate.rung]
            self._corrected |= {design.key: value for design, value in further}
            new = [  # one that is proposed again is worth what it came to meanwhile
                (r.candidate.design, self._corrected.get(r.candidate.key, r.reward))
                for r in last
                if not r.candidate.rung
            ]
            number = len(self.results) // together - 1
            rng = generator(self.settings.seed, "replay", number)
            self._agent.learn_from(new, rng, corrected=further)

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
        taken = ChainMap[str, Any](fresh, self._by_work)
        if self.settings.mode == "async":  # in sync mode, nothing of earlier iterations waits
            taken.maps.append(self._waiting.keys)
        due = self._rungs.due(begin + self._together - first)
        for number in range(begin, begin + self._together):
            if number < first:  # a crash tore the batch: an agent's plan is that of its beginning
                if (candidate := self.candidates[number]).of is None:
                    self._agent.propose(epsilon, self._draws(number), taken)
                    fresh[candidate.key] = number
                continue
            if number - first < len(due):
                below = self.candidates[of := due[number - first]]
                candidate = replace(
                    below,
                    number=number,
                    iteration=iteration,
                    epsilon=epsilon,
                    rung=below.rung + 1,
                    of=of,
                )
            else:
                design = self._agent.propose(epsilon, self._draws(number), taken)
                fresh[design.key] = number
                block, shape = parts_of(design)
                shape = self._costs.matched(block, shape)
                candidate = Candidate(number, iteration, epsilon, block, design.key, shape)
            records.append(proposal_record(candidate, time.time()))
        self._append(records)
        for candidate in self.candidates[first:]:
            self._enter(candidate)

    def _draws(self, number: int) -> Generator:
        return generator(self.settings.seed, "proposal", number)

    def _enter(self, candidate: Candidate, kept: Outcome | None = None) -> None:
        """Let a candidate wait, with its outcome if that is known: on disk it was `kept`."""
        if earlier := self.result_of(candidate.work):  # the same graph: the same cost
            number = earlier.candidate.number
            self._waiting.add(Waiting(candidate, earlier.cost, earlier.outcome, same_as=number))
            return
        cost = self._costs.of(candidate.block, candidate.shape)
        if not candidate.rung and (reason := self._costs.over_budget(cost)):
            kept = Outcome(kind="infeasible", reason=reason)
        self._waiting.add(Waiting(candidate, cost, kept))

    def _settle(self) -> None:
        """Journal every candidate that is ready, and those that become so by that."""
        while ready := self._waiting.ready():
            self._append([self._record_of(waiting) for waiting in ready])
            for waiting in ready:
                self._waiting.recorded(waiting)
            if self.finished:  # the schedule may grow, but what is over here is done
                self._over += sorted(self._rungs.ready)
            for number in self._over:
                place = candidate_directory(self.directory, number)
                shutil.rmtree(place, ignore_errors=True)
            self._released += self._over
            self._over = []

    def _clean(self) -> None:
        """Remove the work on candidates that is over, which a kill may have left behind."""
        self._over = []
        before = {candidate.of for candidate in self.pending if candidate.of is not None}
        needed = {*self._pending, *before}
        if not self.finished:
            needed |= self._rungs.ready
        kept = {candidate_directory(self.directory, number) for number in needed}
        for path in (self.directory / "candidates").glob("*"):
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def _record_of(self, waiting: Waiting) -> Record:
        assert waiting.outcome is not None
        value = self._objective.reward(waiting.outcome, waiting.candidate.block, waiting.cost)
        return outcome_record(waiting, value, time.time())

    def _identity(self, candidate: Candidate) -> str:
        settings = self.settings.shaped(candidate.shape)
        return identity(candidate.block, settings, self.task.fingerprint, candidate.rung)

    def _append(self, records: list[Record]) -> None:
        """Write records to the journal and take them in; `SearchError` when the disk is full."""
        assert self._journal is not None
        with as_search_error(self.directory):
            self._journal.append(records)
        for record in records:
            self.apply(record)


def _check_outcome(outcome: object, chance: float) -> None:
    """Raise `ValueError` for what people who train for themselves may hand over instead."""
    if not isinstance(outcome, Outcome):
        raise ValueError(
            f"the outcome is {outcome!r:.60}: give "
            'Outcome(kind="trained", accuracy=...) with the held-out accuracy in percent'
        )
    if outcome.accuracy is not None and 0 < outcome.accuracy <= 1 < chance / 2:
        raise ValueError(
            f"accuracy is {outcome.accuracy}, where chance has {chance:.3g}: give percent, "
            f"{100 * outcome.accuracy:.6g}"
        )


def prices_for(settings: Settings, task: Task, seconds: float | None = None) -> DeviceCost:
    """What layers cost on the device that is to train a search's candidates, measured now, for
    so many seconds or as long as that usually takes.

    Raises `SearchError` for a device that cannot be measured.
    """
    device, threads = settings.workers.typical
    return measured_prices(
        {
            "settings": settings.to_dict(),
            "device": device,
            "threads": threads,
            "num_classes": task.num_classes,
            "in_channels": task.in_channels,
            "image_size": task.image_size,
        },
        seconds,
    )


def _features(costs: Costs, design: Block | ShapedBlock) -> Array:
    """What a surrogate is told of a design."""
    block, shape = parts_of(design)
    return block_features(block, costs.of(block, shape), shape)


def _check_images(settings: Settings, task: Task) -> None:
    """Refuse rungs that want other numbers of training images than there are."""
    named = {"recipe.images": settings.recipe.images}
    named |= {f"rungs[{place}].images": rung.images for place, rung in enumerate(settings.rungs)}
    for name, images in named.items():
        if images is not None and not task.num_classes <= images <= task.train_images:
            raise SettingsError(
                f"{name} is {images:,}: there are {task.train_images:,} training images in "
                f"{task.num_classes:,} classes; give a number between, or null for all"
            )


def _check_image_size(settings: Settings, task: Task) -> None:
    skeletons = settings.space.skeletons or (settings.network.skeleton,)
    pools = len(settings.network.filters) - 1 + max(STEM_POOLS[each] for each in skeletons)
    if task.image_size >> pools == 0:
        raise SettingsError(
            f"network.filters is {settings.network.filters!r}: {pools} poolings leave nothing of "
            f"images of {task.image_size} pixels; give fewer stages or larger images"
        )
