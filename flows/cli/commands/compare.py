"""`blockqnn compare`: agents on a table or in finished searches, by the same budget and seeds."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from concurrent.futures.process import BrokenProcessPool
from itertools import count
from typing import TYPE_CHECKING, Any

from blockqnn.errors import SettingsError, UserError
from blockqnn.search.history import read_search
from blockqnn.settings.checks import require
from evaluation.comparison.agents import TPE, AgentSpec, agent_specs
from evaluation.comparison.run import About, AgentRun, run_agents
from flows.cli import shared
from flows.cli.parser import add_command
from flows.runs import runs_directory, search_directory

if TYPE_CHECKING:
    from evaluation.comparison.report import Comparison

AGENTS = "dyna_q,q_learning,evolution,random"
"""Agents that are compared unless --agents names others."""
BUDGET = 400
"""Evaluations of each run unless --budget says otherwise."""
SEEDS = 20
"""Runs of each agent unless --seeds says otherwise."""
MOST = 10**5
"""Largest budget, number of seeds and number of processes; more would not fit into memory."""
OF_TABLES = ("agents", "budget", "seeds", "jobs", "data")
"""Options that serve with a table alone, not with finished searches."""


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "compare",
        "compare agents on one task: curves, a table, a test of significance",
        "blockqnn compare --cells nasbench201.csv.gz --budget 200 --to compared",
        "blockqnn compare --searches mine mine-random --to compared",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    shared.add_path(source, "--cells", "FILE", "NAS-Bench-201's cells, CSV")
    shared.add_path(source, "--blocks", "FILE", "a table of trained blocks")
    source.add_argument("--searches", nargs="+", metavar="NAME", help="finished searches")
    parser.add_argument("--data", help="of --cells: cifar10 (default), cifar100, imagenet16")
    text = (
        "dyna_q,q_learning,evolution,random (default) or tpe (Optuna's), separated by commas; "
        "settings after colons, say q_learning:learning_rate=0.1, evolution:population=20:batch=5"
    )
    parser.add_argument("--agents", metavar="LIST", help=text)
    parser.add_argument("--budget", type=int, metavar="N", help="of each run (400)")
    parser.add_argument("--seeds", type=int, metavar="N", help="runs an agent (20)")
    units = ["evaluations", "trainings"]
    text = "what the budget counts: every proposal (default), or no repeats"
    parser.add_argument("--count", choices=units, default=units[0], help=text)
    text = "where the table looks (a quarter, half and all of the budget)"
    parser.add_argument("--checkpoints", nargs="+", type=int, metavar="N", help=text)
    parser.add_argument("--against", metavar="AGENT", help="reference of the test (the first)")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes (one a core)")
    shared.add_runs(parser)
    shared.add_path(parser, "--to", "DIR", "for comparison.md, .csv and .png", required=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Compare agents, write the comparison into the directory --to and print the page's path.

    Raises `SettingsError` for wrong use and `UserError` for files and searches that do not serve.
    """
    with shared.writing(options.to):
        from evaluation.comparison.report import write_comparison

        comparison = _of_searches(options) if options.searches else _of_table(options)
        print(write_comparison(comparison, options.to))


def _of_searches(options: argparse.Namespace) -> Comparison:
    from evaluation.comparison.searches import about_searches, runs_of_searches

    for name in OF_TABLES:
        value = getattr(options, name)
        require(value is None, name, value, "finished searches have their own; leave it out")
    names = options.searches
    for name in names:
        require(names.count(name) == 1, "searches", name, "name each once")
    default = options.runs == runs_directory()
    place = [] if default else ["--runs", os.path.relpath(options.runs)]
    found = {name: read_search(search_directory(options.runs, name)) for name in names}
    found_runs = runs_of_searches(found, options.count)
    return _comparison(options, found_runs, about_searches(found), [*place, "--searches", *names])


def _of_table(options: argparse.Namespace) -> Comparison:
    from blockqnn.training.devices import usable_cores  # torch

    budget = BUDGET if options.budget is None else options.budget
    seeds = SEEDS if options.seeds is None else options.seeds
    jobs = usable_cores() if options.jobs is None else options.jobs
    for name, value in (("budget", budget), ("seeds", seeds), ("jobs", jobs)):
        require(1 <= value <= MOST, name, value, f"give 1 to {MOST:,}")
    texts = (options.agents or AGENTS).split(",")
    agents = agent_specs(texts, budget)
    if any(agent.settings is None for agent in agents):
        from evaluation.comparison.tpe import import_optuna

        import_optuna()
    _checkpoints(options, budget)  # wrong use costs no waiting
    _against(options, texts)
    benchmark, source = _benchmark(options)
    total = len(agents) * seeds
    arrived = count(1)

    def progress(_: AgentRun) -> None:
        if sys.stderr.isatty():
            ended = next(arrived)
            end = "\n" if ended == total else ""
            print(f"\r{ended} of {total} runs", end=end, file=sys.stderr, flush=True)

    try:
        runs = run_agents(
            benchmark,
            agents,
            budget=budget,
            unit=options.count,
            seeds=seeds,
            jobs=jobs,
            done=progress,
        )
    except BrokenProcessPool:
        raise UserError(
            f"one of {jobs} processes was killed, for its memory perhaps: give the command again, "
            "with fewer --jobs"
        ) from None
    source += ["--agents", ",".join(texts), "--budget", str(budget), "--seeds", str(seeds)]
    return _comparison(options, runs, benchmark.about, source, _how(agents))


def _benchmark(options: argparse.Namespace) -> tuple[Any, list[str]]:
    if options.blocks is not None:
        from evaluation.comparison.block_tables import BlockBenchmark, read_block_table

        value = options.data
        require(value is None, "data", value, "a table of blocks has its own; leave it out")
        table = read_block_table(options.blocks)
        return BlockBenchmark(table, options.blocks), ["--blocks", options.blocks.name]
    from evaluation.comparison.nasbench201 import read_nasbench201

    data = options.data or "cifar10"
    return read_nasbench201(options.cells, data), ["--cells", options.cells.name, "--data", data]


def _comparison(
    options: argparse.Namespace,
    runs: list[AgentRun],
    about: About,
    source: list[str],
    how: str = "",
) -> Comparison:
    from evaluation.comparison.report import Comparison

    labels = list(dict.fromkeys(run.label for run in runs))
    words = ["blockqnn", "compare", *source, "--count", options.count]
    if options.checkpoints is not None:
        words += ["--checkpoints", *map(str, options.checkpoints)]
    if options.against is not None:
        words += ["--against", options.against]
    return Comparison(
        about=about,
        runs=runs,
        unit=options.count,
        checkpoints=_checkpoints(options, len(runs[0].rewards)),
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
