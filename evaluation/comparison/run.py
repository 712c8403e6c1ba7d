"""Agents on one task with one budget: what each has found after every evaluation.

Proposals that name what was tried before are counted in one of two ways. `evaluations` counts every
proposal, as if each cost a training; `trainings` only new designs, since a search never trains one
twice: repeats are learned from again and cost nothing, as in `blockqnn.search.search`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from blockqnn.agents import Agent
from blockqnn.seeds import generator
from blockqnn.space.design import Choices, D
from evaluation.comparison.agents import AgentSpec, Unit

PATIENCE = 1000
"""Repeats in a row after which an agent has nothing new to say: its curve stays where it is."""


class Score(NamedTuple):
    """What a design came to: the reward, which the agent learns, and the accuracy to report."""

    reward: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class About:
    """What a report says about a task."""

    title: str
    about: str
    measure: Literal["reward", "accuracy"]
    """Of the pick, the evaluated design with the best reward: what agents are compared by."""
    measured: str
    """The measure in words, with its unit."""
    best: float | None = None
    """The highest value of the measure that there is."""
    published: tuple[tuple[str, float], ...] = ()
    publication: str = ""


class Benchmark(Protocol[D]):
    """A space, and what each of its designs came to."""

    @property
    def space(self) -> Choices[D]: ...

    @property
    def subject(self) -> About: ...

    def encode(self, design: D) -> NDArray[np.float64]:
        """A vector of the design, for agents that have a model."""

    def score(self, design: D) -> Score:
        """What the design came to; the same each time."""


@dataclass(frozen=True)
class AgentRun:
    """One agent and seed; one entry a counted evaluation in each sequence."""

    label: str
    seed: int
    rewards: tuple[float, ...]
    """Best so far."""
    accuracies: tuple[float, ...]
    """Of the pick so far."""
    evaluations: tuple[int, ...]
    """Proposals so far."""
    distinct: tuple[int, ...]
    """Designs so far."""
    seconds: float = 0.0
    """CPU time of the agent."""

    def values(self, measure: str) -> tuple[float, ...]:
        """The sequence of one measure."""
        return self.rewards if measure == "reward" else self.accuracies


class _Best:
    """Takes in designs one by one and keeps the best so far."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.keys: dict[str, Any] = {}
        self.repeats = 0
        """In a row."""
        self._evaluations = 0
        self._best: Score | None = None
        self._rows: list[tuple[float, float, int, int]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, key: str, score: Score) -> None:
        """One proposal and what it came to."""
        new = key not in self.keys
        self.keys[key] = None
        self.repeats = 0 if new else self.repeats + 1
        self._evaluations += 1
        if self._best is None or score.reward > self._best.reward:
            self._best = score
        row = (*self._best, self._evaluations, len(self.keys))
        if new or self.unit == "evaluations":
            self._rows.append(row)
        else:  # a repeat belongs to the training before it; its reward may be better
            self._rows[-1] = row

    def course(self, label: str, seed: int, budget: int, seconds: float = 0.0) -> AgentRun:
        """What was recorded; what is missing of the budget stays as it was at the end."""
        rows = self._rows[:budget]
        rows += rows[-1:] * (budget - len(rows))
        rewards, accuracies, evaluations, distinct = zip(*rows, strict=True)
        return AgentRun(label, seed, rewards, accuracies, evaluations, distinct, seconds)


def run_agent(
    task: Benchmark[D], contestant: AgentSpec, budget: int, unit: Unit, seed: int
) -> AgentRun:
    """One agent on the task until the budget is spent."""
    with threadpool_limits(1):
        begun = time.process_time()
        agent: Agent[D] = contestant.build(task.space, task.encode)
        record = _Best(unit)
        number = 0
        for turn in _turns(record, budget):
            finished: list[tuple[D, float]] = []
            while len(finished) < contestant.batch and len(record) < budget:
                epsilon = contestant.epsilon(len(record), budget)
                rng = generator(seed, "contest proposal", number)
                design = agent.propose(epsilon, rng, record.keys)
                score = task.score(design)
                record.add(design.key, score)
                finished.append((design, score.reward))
                number += 1
            agent.learn_from(finished, generator(seed, "contest replay", turn))
        spent = time.process_time() - begun
    return record.course(contestant.label, seed, budget, spent)


def _turns(record: _Best, budget: int) -> Iterator[int]:
    turn = 0
    while len(record) < budget and record.repeats < PATIENCE:
        yield turn
        turn += 1


def run_agents(
    task: Benchmark[D],
    agent_specs: Sequence[AgentSpec],
    *,
    budget: int,
    unit: Unit,
    seeds: int,
    jobs: int,
    done: Callable[[AgentRun], None] = lambda course: None,
) -> list[AgentRun]:
    """Every agent with seeds 0 to `seeds` - 1, in `jobs` processes: the same for any number.

    Agent by agent, seeds ascending; `done` is called with each as it arrives.
    """
    pairs = [(contestant, seed) for contestant in agent_specs for seed in range(seeds)]
    courses = []
    if jobs == 1:
        for contestant, seed in pairs:
            courses.append(run_agent(task, contestant, budget, unit, seed))
            done(courses[-1])
        return courses
    start = partial(_begin, task, budget, unit)
    with ProcessPoolExecutor(min(jobs, len(pairs)), get_context("spawn"), start) as pool:
        for course in pool.map(_one, *zip(*pairs, strict=True)):
            courses.append(course)
            done(course)
    return courses


_given: list[Any] = []
"""Of a worker process: the task, the budget, the unit."""


def _begin(*given: Any) -> None:
    _given[:] = given


def _one(contestant: AgentSpec, seed: int) -> AgentRun:
    task, budget, unit = _given
    return run_agent(task, contestant, budget, unit, seed)
