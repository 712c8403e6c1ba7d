"""Agents on one benchmark with one budget: what each has found after every evaluation.

A proposal may name a design that was tried before. If `evaluations` are counted, every proposal
counts, as if each cost a training. If `trainings` are counted, only new designs do, since a search
never trains a design twice: from repeats the agent learns again, and they cost nothing.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
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
"""Repeats in a row after which a run ends, since the agent proposes nothing new any more."""


class Score(NamedTuple):
    """What a design came to: the reward that the agent learns, and the accuracy in percent."""

    reward: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class About:
    """What a report says about a benchmark."""

    title: str
    text: str
    measure: Literal["reward", "accuracy"]
    """What agents are compared by: this number of the pick, which is the evaluated design with the
    best reward."""
    measured: str
    """The measure in words, with its unit."""
    best: float | None = None
    """The highest value of the measure in the benchmark, if it is known."""
    published: tuple[tuple[str, float], ...] = ()
    """Names of agents and values of the measure that were published."""
    publication: str = ""
    """Where they were published, and under which conditions."""


class Benchmark(Protocol[D]):
    """A space whose designs all have a known score."""

    @property
    def space(self) -> Choices[D]: ...

    @property
    def about(self) -> About: ...

    def encode(self, design: D) -> NDArray[np.float64]:
        """A vector of the design, for agents that have a model."""

    def score(self, design: D) -> Score:
        """What the design came to, the same at every call."""


@dataclass(frozen=True)
class AgentRun:
    """What one agent found with one seed. Sequences have one entry for each counted evaluation."""

    label: str
    seed: int
    rewards: tuple[float, ...]
    """Best reward so far."""
    accuracies: tuple[float, ...]
    """Accuracy of the design with the best reward so far, in percent."""
    evaluations: tuple[int, ...]
    """Number of proposals so far."""
    distinct: tuple[int, ...]
    """Number of different designs so far."""
    seconds: float = 0.0
    """CPU seconds that the agent took; 0 if they are not known."""

    def values(self, measure: str) -> tuple[float, ...]:
        """The rewards or the accuracies."""
        return self.rewards if measure == "reward" else self.accuracies


class BestSoFar:
    """Takes in scored designs one by one and keeps the best so far after each counted one."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.keys: dict[str, None] = {}
        """Keys of the designs so far."""
        self.repeats = 0
        """Repeats since the last new design."""
        self._evaluations = 0
        self._best: Score | None = None
        self._rows: list[tuple[float, float, int, int]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, key: str, score: Score) -> None:
        """Take in one proposal, by its design's key, and its score."""
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

    def run(self, label: str, seed: int, budget: int, seconds: float = 0.0) -> AgentRun:
        """What was found in `budget` evaluations. Missing ones repeat the last that was counted."""
        rows = self._rows[:budget]
        rows += rows[-1:] * (budget - len(rows))
        rewards, accuracies, evaluations, distinct = zip(*rows, strict=True)
        return AgentRun(label, seed, rewards, accuracies, evaluations, distinct, seconds)


def run_agent(
    spec: AgentSpec, seed: int, benchmark: Benchmark[D], budget: int, unit: Unit
) -> AgentRun:
    """Let one agent propose designs of a benchmark until the budget is spent."""
    with threadpool_limits(1):
        begun = time.process_time()
        agent: Agent[D] = spec.build(benchmark.space, benchmark.encode)
        found = BestSoFar(unit)
        proposals, lessons = count(), count()
        while len(found) < budget and found.repeats < PATIENCE:
            finished: list[tuple[D, float]] = []
            while len(finished) < spec.batch and len(found) < budget:
                epsilon = spec.epsilon(len(found), budget)
                rng = generator(seed, "contest proposal", next(proposals))
                design = agent.propose(epsilon, rng, found.keys)
                score = benchmark.score(design)
                found.add(design.key, score)
                finished.append((design, score.reward))
            agent.learn_from(finished, generator(seed, "contest replay", next(lessons)))
        spent = time.process_time() - begun
    return found.run(spec.label, seed, budget, spent)


def run_agents(
    benchmark: Benchmark[D],
    specs: Sequence[AgentSpec],
    *,
    budget: int,
    unit: Unit,
    seeds: int,
    jobs: int,
    done: Callable[[AgentRun], None] = lambda run: None,
) -> list[AgentRun]:
    """Run every agent with the seeds 0 to `seeds` - 1 in `jobs` processes.

    Returns the runs agent by agent, seeds ascending, the same for any number of processes. `done`
    is called with each run in this order. Raises BrokenProcessPool if a process was killed.
    """
    pairs = [(spec, seed) for spec in specs for seed in range(seeds)]
    one: Any = partial(run_agent, benchmark=benchmark, budget=budget, unit=unit)
    runs = []
    with ExitStack() as stack:
        each: Any = map
        if jobs > 1:
            processes, spawn = min(jobs, len(pairs)), get_context("spawn")
            pool = stack.enter_context(ProcessPoolExecutor(processes, spawn, _begin, (one,)))
            each, one = pool.map, _run_here
        for run in each(one, *zip(*pairs, strict=True)):
            runs.append(run)
            done(run)
    return runs


_given: list[Callable[[AgentSpec, int], AgentRun]] = []
"""What a process of the pool calls. It holds the benchmark, which is therefore sent only once."""


def _begin(run: Callable[[AgentSpec, int], AgentRun]) -> None:
    _given.append(run)


def _run_here(spec: AgentSpec, seed: int) -> AgentRun:
    return _given[0](spec, seed)
