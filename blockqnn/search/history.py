"""What a journal says: the search's settings, its candidates and their results."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from blockqnn import __version__
from blockqnn.agents import EpsilonSchedule
from blockqnn.cost import Cost, DeviceCost
from blockqnn.errors import SearchError, UserError
from blockqnn.params import settings_from_dict
from blockqnn.search.journal import Record, whole_records
from blockqnn.search.outcome import Outcome
from blockqnn.search.pending import Waiting
from blockqnn.search.records import Candidate, Result, Standing, Task
from blockqnn.settings import Settings
from blockqnn.space import Block, Shape

JOURNAL = "journal.jsonl"
"""Name of the journal in a search's directory."""
VERSION = 2
"""Version of the journal's format; later versions of this package read it or refuse it.

Version 1 has keys that tell networks apart by poolings of kernel 1, which compute nothing. Of its
blocks that make one network each may have a training of its own; those to come share one."""
RANKED = 256
"""Number of best blocks that are kept in order; more have to be sorted when asked for."""


class History:
    """The state of a search as its journal tells it. Reading alone needs no lock.

    `candidates` has every proposal by number; `results` every candidate told, in journal order;
    `standings` one entry a whole iteration. All three are only ever added to.
    """

    settings: Settings
    task: Task

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []
        self.results: list[Result] = []
        self.standings: list[Standing] = []
        self.schedule = EpsilonSchedule(())
        self.prices: DeviceCost | None = None
        self.begun = False
        self._version = VERSION
        self._pending: dict[int, Candidate] = {}
        self._by_number: list[Result | None] = []
        self._by_work: dict[str, Result] = {}
        self._best: list[Result] = []

    def apply(self, record: Record) -> None:
        """Take in one record of the journal; `SearchError` when it cannot follow those before."""
        try:
            self._apply(record["type"], record)
        except UserError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SearchError(
                f"the journal has a record that no search writes ({type(error).__name__}: {error}) "
                f"after {len(self.candidates)} proposals and {len(self.results)} outcomes; nothing "
                "was changed, restore the file from a copy"
            ) from error

    def _apply(self, kind: str, record: Record) -> None:
        if (kind == "begin") == self.begun:
            raise _misplaced(kind, record)
        if kind == "begin":
            if record["version"] not in (1, VERSION):
                raise SearchError(
                    f"the journal has format {record['version']}, this version reads {VERSION}: go "
                    f"on with blockqnn {record['blockqnn']}, which began it"
                )
            self._version = int(record["version"])
            self.task = Task(**record["task"])
            if "prices" in record:
                self.prices = DeviceCost.from_dict(record["prices"])
        if kind in ("begin", "settings"):
            self.settings = _settings(record["settings"])
            self.schedule = EpsilonSchedule(self.settings.schedule)
            self.begun = True
        elif kind == "proposal":
            number, iteration = record["number"], record["iteration"]
            if number != len(self.candidates) or iteration != self.iteration:
                raise _misplaced(kind, record)
            block = Block.parse(record["code"], self.settings.space.max_index)
            candidate = Candidate(
                number,
                iteration,
                record["epsilon"],
                block,
                block.key if self._version == 1 else record["key"],
                Shape.from_dict(record),
                rung=record.get("rung", 0),
                of=record.get("of"),
            )
            if not self._follows(candidate):
                raise _misplaced(kind, record)
            self.candidates.append(candidate)
            self._by_number.append(None)
            self._pending[candidate.number] = candidate
        elif kind == "outcome":
            number, whole = record["number"], len(self.candidates) % self.settings.batch == 0
            early = self.settings.mode == "sync" and not (whole and number == len(self.results))
            if number not in self._pending or early:
                raise _misplaced(kind, record)
            self._add(record)

    def _follows(self, candidate: Candidate) -> bool:
        """Whether a candidate is on the first rung, or one rung above a trained one of its own."""
        if candidate.of is None:
            return candidate.rung == 0
        before = self.result(candidate.of)
        if before is None or before.outcome.kind != "trained":
            return False
        same = before.candidate.key == candidate.key
        return same and before.candidate.rung + 1 == candidate.rung <= len(self.settings.rungs)

    def result(self, number: int) -> Result | None:
        """The result of the candidate with that number, None while it is pending."""
        return self._by_number[number] if 0 <= number < len(self._by_number) else None

    @property
    def trainings(self) -> list[Result]:
        """The results of candidates that were trained themselves, to the end or not."""
        own = (result for result in self.results if result.same_as is None)
        return [result for result in own if result.outcome.kind != "infeasible"]

    @property
    def device_hours(self) -> float:
        """Hours that the candidates took on their devices, also those that were not trained."""
        return sum(r.outcome.seconds for r in self.results if r.same_as is None) / 3600

    def why_none(self) -> str:
        """A sentence on why the search has no best block; it is for a search that has none."""
        own = [result for result in self.results if result.same_as is None]
        if not own:
            return "no block has been trained yet"
        smallest = min(own, key=lambda result: result.cost.parameters).outcome
        what = "" if smallest.kind == "infeasible" else f"{smallest.kind}: "
        return (
            f"none of {len(own):,} blocks was trained to its end; the smallest {what}"
            f"{smallest.reason}"
        )

    def result_of(self, work: str) -> Result | None:
        """The first result of that work (`Candidate.work`), None when there is none."""
        return self._by_work.get(work)

    @property
    def pending(self) -> list[Candidate]:
        """Candidates that are proposed and have no result, in order of their numbers."""
        return list(self._pending.values())

    @property
    def iterations(self) -> int:
        """Iterations of the whole search."""
        return self.schedule.iterations

    @property
    def iteration(self) -> int:
        """The running iteration, from 0; equal to `iterations` when the search is finished."""
        return len(self.results) // self.settings.batch

    @property
    def epsilon(self) -> float:
        """Epsilon of the running iteration."""
        return self.schedule.at(min(self.iteration, self.iterations - 1))

    @property
    def total(self) -> int:
        """Candidates of the whole search."""
        return self.iterations * self.settings.batch

    @property
    def finished(self) -> bool:
        """Whether every candidate of the schedule has its outcome."""
        return len(self.results) >= self.total

    def best(self, k: int) -> list[Result]:
        """The `k` best distinct trained blocks, best first: those of the highest rung, by reward;
        of equals the earlier one.
        """
        if k <= len(self._best) or len(self._best) < RANKED:
            return self._best[:k]
        best: dict[str, Result] = {}
        for result in self.results:
            if result.outcome.kind == "trained":
                key = result.candidate.key
                if key not in best or _order(result) < _order(best[key]):
                    best[key] = result
        return sorted(best.values(), key=_order)[:k]

    def _add(self, record: Record) -> None:
        candidate = self.candidates[record["number"]]
        same_as = record.get("same_as")
        shared = self.result(same_as) if same_as is not None else None
        result = Result(
            candidate=candidate,
            outcome=shared.outcome if shared else Outcome.from_dict(record["outcome"]),
            reward=record["reward"],
            cost=shared.cost if shared else Cost(**record["cost"]),
            same_as=same_as,
            time=record["time"],
        )
        begun = len(self.results) // self.settings.batch * self.settings.batch
        if len(self.results) + 1 == begun + self.settings.batch:
            # before the result: a thread that sees the last of an iteration finds its standing
            self.standings.append(self._standing([*self.results[begun:], result]))
        self.results.append(result)
        del self._pending[candidate.number]
        self._by_number[candidate.number] = result
        self._by_work.setdefault(candidate.work, result)
        self._rank(result)

    def _rank(self, result: Result) -> None:
        """Keep the best blocks in order. A block only rises, so that none is missed."""
        best, key = self._best, result.candidate.key
        if result.outcome.kind != "trained":
            return
        if len(best) == RANKED and _order(result) > _order(best[-1]):
            return
        same = next((other for other in best if other.candidate.key == key), result)
        if same is result or _order(result) < _order(same):
            others = (other for other in best if other is not same)
            self._best = sorted([*others, result], key=_order)[:RANKED]

    def _standing(self, iteration: Iterable[Result]) -> Standing:
        rewards: list[float] = []
        accuracies: list[float | None] = []
        distinct = 0
        if self.standings:
            before = self.standings[-1]
            rewards, accuracies = [before.best_reward], [before.best_accuracy]
            distinct = before.distinct_blocks
        for result in iteration:
            if result.outcome.kind != "stopped":
                rewards.append(result.reward)
            accuracies.append(result.outcome.accuracy)
            distinct += result.same_as is None
        known = [accuracy for accuracy in accuracies if accuracy is not None]
        return Standing(max(rewards, default=self.task.chance), max(known, default=None), distinct)


def _order(result: Result) -> tuple[int, float, int]:
    """A key that sorts the best result first, and of equals the earlier one."""
    return -result.candidate.rung, -result.reward, result.candidate.number


def _settings(values: Mapping[str, Any]) -> Settings:
    """The settings of a record; those from before latencies were predicted say so."""
    latency = values.get("latency", {})
    if "source" not in latency and (
        values["budget"].get("latency") is not None or values["reward"].get("latency")
    ):
        values = {**values, "latency": {**latency, "source": "measured"}}
    return settings_from_dict(values)


def read_search(directory: Path) -> History:
    """The search whose journal is in `directory`, as it stands now; another process may write it.

    Raises `SearchError` when there is no search, or its journal is damaged.
    """
    path = directory / JOURNAL
    history = History()
    try:
        for record, _ in whole_records(path):
            history.apply(record)
    except FileNotFoundError:
        raise SearchError(f"there is no search in {directory}: {_those_there(directory)}") from None
    except OSError as error:
        raise SearchError(f"there is no search in {directory} ({error.strerror})") from None
    if not history.begun:
        raise SearchError(f"the search in {directory} has not begun: its journal is empty")
    return history


def _those_there(directory: Path) -> str:
    """Which searches lie beside a directory that has none, the one that was meant first."""
    names = sorted(path.parent.name for path in directory.parent.glob(f"*/{JOURNAL}"))
    if near := difflib.get_close_matches(directory.name, names, n=1):
        return f"did you mean {near[0]}?"
    shown = f"{', '.join(names[:8])}{' and others' if len(names) > 8 else ''}"
    return f"there {'is' if len(names) == 1 else 'are'} {shown}" if names else "none is there"


def _misplaced(kind: str, record: Record) -> SearchError:
    what = " ".join([kind, *([str(record["number"])] if "number" in record else [])])
    return SearchError(
        f"the journal's record of {what} does not follow from those before it: lines were removed, "
        "moved or repeated; nothing was changed, restore the file from a copy"
    )


def begin_record(settings: Settings, task: Task, prices: DeviceCost | None, time: float) -> Record:
    """The journal's first record."""
    record = {
        "type": "begin",
        "version": VERSION,
        "blockqnn": __version__,
        "settings": settings.to_dict(),
        "task": task.to_dict(),
    }
    if prices is not None:
        record["prices"] = prices.to_dict()
    return {**record, "time": time}


def proposal_record(candidate: Candidate, time: float) -> Record:
    """The journal's record of a candidate."""
    record: Record = {"type": "proposal", "number": candidate.number}
    record |= {"iteration": candidate.iteration, "epsilon": candidate.epsilon}
    record |= {"code": str(candidate.block), "key": candidate.key}
    record |= candidate.shape.to_dict()
    if candidate.of is not None:
        record |= {"rung": candidate.rung, "of": candidate.of}
    return {**record, "time": time}


def outcome_record(waiting: Waiting, reward: float, time: float) -> Record:
    """The journal's record of a candidate's outcome, or of whose training the candidate shares."""
    record: Record = {"type": "outcome", "number": waiting.candidate.number, "reward": reward}
    if waiting.same_as is None and waiting.outcome is not None:
        record |= {"outcome": waiting.outcome.to_dict(), "cost": waiting.cost.to_dict()}
    else:
        record["same_as"] = waiting.same_as
    return {**record, "time": time}
