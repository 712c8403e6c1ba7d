"""`blockqnn compare`: agents on a table or in finished searches, by the same budget and seeds."""

import argparse
import os
import shlex
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from blockqnn.errors import SettingsError, UserError
from blockqnn.settings.checks import require
from blockqnn.training.devices import usable_cores
from evaluation.comparison.agents import TPE, AgentSpec, Unit, agent_specs
from evaluation.comparison.report import Comparison, write_comparison
from evaluation.comparison.run import AgentRun, run_agents
from flows.runs import runs_directory, search_directory

AGENTS = "dyna_q,q_learning,evolution,random"
BUDGET, SEEDS = 400, 20
MOST = 10**5
"""Of each: curves of more fit no memory."""
OF_TABLES = ("agents", "budget", "seeds", "jobs", "data")


def compare(options: argparse.Namespace) -> Path:
    """Run or read what was asked for and write it to `options.to`; returns the text's path.

    Raises `SettingsError` for wrong use and `UserError` for files and searches that do not serve.
    """
    unit: Unit = options.count
    if options.searches:
        comparison = _of_searches(options, unit)
    else:
        comparison = _of_table(options, unit)
    return write_comparison(comparison, options.to)


def _of_searches(options: argparse.Namespace, unit: Unit) -> Comparison:
    from blockqnn.search.history import read_search
    from evaluation.comparison.searches import courses_of, subject_of

    for name in OF_TABLES:
        value = getattr(options, name)
        require(value is None, name, value, "finished searches have their own; leave it out")
    names = options.searches
    for name in names:
        require(names.count(name) == 1, "searches", name, "name each once")
    default = options.runs == runs_directory()
    runs = [] if default else ["--runs", os.path.relpath(options.runs)]
    found = {name: read_search(search_directory(options.runs, name)) for name in names}
    courses = courses_of(found, unit)
    return _comparison(options, unit, courses, subject_of(found), [*runs, "--searches", *names])


def _of_table(options: argparse.Namespace, unit: Unit) -> Comparison:
    budget = BUDGET if options.budget is None else options.budget
    seeds = SEEDS if options.seeds is None else options.seeds
    jobs = usable_cores() if options.jobs is None else options.jobs
    for name, value in (("budget", budget), ("seeds", seeds), ("jobs", jobs)):
        require(1 <= value <= MOST, name, value, f"give 1 to {MOST:,}")
    texts = (options.agents or AGENTS).split(",")
    agents = agent_specs(texts, budget)
    if any(agent.settings is None for agent in agents):
        from evaluation.comparison.tpe import check_optuna

        check_optuna()
    _checkpoints(options, budget)  # wrong use costs no waiting
    _against(options, texts)
    task, source = _task(options)
    total = len(agents) * seeds
    arrived = 0

    def progress(course: AgentRun) -> None:
        nonlocal arrived
        arrived += 1
        if sys.stderr.isatty():
            end = "\n" if arrived == total else ""
            print(f"\r{arrived} of {total} runs", end=end, file=sys.stderr, flush=True)

    try:
        courses = run_agents(
            task, agents, budget=budget, unit=unit, seeds=seeds, jobs=jobs, done=progress
        )
    except BrokenProcessPool:
        raise UserError(
            f"one of {jobs} processes was killed, for its memory perhaps: give the command again, "
            "with fewer --jobs"
        ) from None
    source += ["--agents", ",".join(texts), "--budget", str(budget), "--seeds", str(seeds)]
    return _comparison(options, unit, courses, task.subject, source, _how(agents))


def _task(options: argparse.Namespace) -> tuple[Any, list[str]]:
    if options.blocks is not None:
        from evaluation.comparison.block_tables import BlockTask, read_block_table

        value = options.data
        require(value is None, "data", value, "a table of blocks has its own; leave it out")
        table = read_block_table(options.blocks)
        return BlockTask(table, options.blocks), ["--blocks", options.blocks.name]
    from evaluation.comparison.nasbench201 import read_nasbench201

    data = options.data or "cifar10"
    return read_nasbench201(options.cells, data), ["--cells", options.cells.name, "--data", data]


def _comparison(
    options: argparse.Namespace,
    unit: Unit,
    courses: list[AgentRun],
    subject: Any,
    source: list[str],
    how: str = "",
) -> Comparison:
    labels = list(dict.fromkeys(course.label for course in courses))
    words = ["blockqnn", "compare", *source, "--count", unit]
    if options.checkpoints is not None:
        words += ["--checkpoints", *map(str, options.checkpoints)]
    if options.against is not None:
        words += ["--against", options.against]
    return Comparison(
        subject=subject,
        courses=courses,
        unit=unit,
        checkpoints=_checkpoints(options, len(courses[0].rewards)),
        against=_against(options, labels),
        command=shlex.join(words),
        how=how,
    )


def _checkpoints(options: argparse.Namespace, budget: int) -> list[int]:
    if options.checkpoints is None:
        return sorted({max(1, budget // part) for part in (4, 2, 1)})
    for value in options.checkpoints:
        require(1 <= value <= budget, "checkpoints", value, f"give 1 to {budget}, the budget")
    return sorted(set(options.checkpoints))


def _against(options: argparse.Namespace, labels: list[str]) -> str:
    if options.against is None:
        return labels[0]
    if options.against not in labels:
        raise SettingsError(f"against is {options.against!r}: choose of {', '.join(labels)}")
    return str(options.against)


def _how(agents: list[AgentSpec]) -> str:
    said = []
    for agent in agents:
        if agent.settings is None:
            said.append(f"{agent.label}: Optuna's {TPE.upper()} as it comes, batches {agent.batch}")
            continue
        values = {k: v for k, v in vars(agent.settings).items() if k != "kind"}
        own = "".join(f", {name} {value}" for name, value in values.items())
        schedule = ", the paper's schedule" if agent.settings.kind == "q_learning" else ""
        first = f", first {agent.first} at random" if agent.first else ""
        said.append(f"{agent.label}: batches of {agent.batch}{first}{own}{schedule}")
    return "; ".join(said) + "."
