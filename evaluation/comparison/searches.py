"""Finished searches as runs of agents, which their journals tell."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from blockqnn.errors import UserError
from blockqnn.search.history import History
from evaluation.comparison.agents import Unit
from evaluation.comparison.run import About, AgentRun, BestSoFar, Score

HARMLESS = ("seed", "agent", "workers", "tracking")
"""Sections of the settings in which searches may differ and still be compared."""
USE = ("mode", "batch", "schedule")
"""Settings that say how an agent is used. Searches may differ in them as in the agent's own."""


def runs_of_searches(searches: Mapping[str, History], unit: Unit) -> list[AgentRun]:
    """One run for each search, grouped by agent, all as long as the shortest.

    Raises `UserError` if the searches cannot be compared.
    """
    check_comparable(searches)
    labels = _labels(searches)
    found = {name: _best_so_far(history, unit) for name, history in searches.items()}
    for name, best in found.items():
        if not len(best):
            raise UserError(f"the search {name} has trained nothing: compare searches that did")
    budget = min(map(len, found.values()))
    runs = [
        found[name].run(labels[name], history.settings.seed, budget)
        for name, history in searches.items()
    ]
    by_label: dict[str, list[int]] = {}
    for run in runs:
        by_label.setdefault(run.label, []).append(run.seed)
    wanted = sorted({run.seed for run in runs})
    for label, seeds in by_label.items():
        if sorted(seeds) != wanted:
            raise UserError(
                f"{label} has the seeds {sorted(seeds)}, all agents together {wanted}: name one "
                "search for every agent and seed"
            )
    order = list(by_label)
    return sorted(runs, key=lambda run: (order.index(run.label), run.seed))


def _best_so_far(history: History, unit: Unit) -> BestSoFar:
    chance = history.task.chance
    best = BestSoFar(unit)
    for result in history.results:
        outcome = result.outcome
        if unit == "trainings" and outcome.kind == "infeasible":
            continue  # refused by its cost, as the budget of every agent refuses it
        score = Score(result.reward, chance if outcome.accuracy is None else outcome.accuracy)
        if outcome.kind == "stopped":  # its reward was only predicted
            score = Score(chance, chance)
        best.add(result.candidate.key, score)
    return best


def check_comparable(searches: Mapping[str, History]) -> None:
    """Raise `UserError` unless all searches are finished, with one budget and the same task."""
    names = list(searches)
    first = searches[names[0]]
    fingerprints: dict[int, tuple[str, str]] = {}
    for name, history in searches.items():
        if not history.finished:
            raise UserError(
                f"the search {name} has {len(history.results)} of {history.total} results: let "
                "it finish (the command that began it goes on with it)"
            )
        if history.total != first.total:
            raise UserError(
                f"the search {name} has {history.total} candidates, {names[0]} {first.total}: "
                "compare searches of one budget"
            )
        own, others = _task(history), _task(first)
        for part, value in own.items():
            if value != others[part]:
                raise UserError(
                    f"the searches {name} and {names[0]} differ in {part}: compare searches with "
                    "the same task"
                )
        seed, images = history.settings.seed, history.task.fingerprint
        other, known = fingerprints.setdefault(seed, (name, images))
        if known != images:
            raise UserError(
                f"the searches {name} and {other} have one seed and different images: compare "
                "searches with the same task"
            )


def _task(history: History) -> dict[str, Any]:
    """The settings that searches must share to be compared.

    Where the images lie is none of them, since searches with one seed must have equal fingerprints.
    """
    tree = history.settings.to_dict()
    tree["data"] = {k: v for k, v in tree["data"].items() if k not in ("root", "download")}
    return {part: value for part, value in tree.items() if part not in (*HARMLESS, *USE)}


def about_searches(searches: Mapping[str, History]) -> About:
    """What a report says about the searches that are compared."""
    task = next(iter(searches.values())).task
    return About(
        title=f"Agents in real searches, {task.data}",
        text=f"{len(searches)} searches on {task.train_images:,} training images, rewards from "
        f"{task.held_out_images:,} held-out ones. The pick is the candidate with the best reward, "
        "its accuracy the held-out one.",
        measure="reward",
        measured="reward of the pick",
    )


def _labels(searches: Mapping[str, History]) -> dict[str, str]:
    """A label of each search's agent: its name, its settings, and its use if that differs."""
    used = {name: _used(history) for name, history in searches.items()}
    differing = [part for part in USE if len({use[part] for use in used.values()}) > 1]
    return {
        name: ":".join(
            [_agent(history.settings.agent), *(f"{p}={used[name][p]}" for p in differing)]
        )
        for name, history in searches.items()
    }


def _used(history: History) -> dict[str, str]:
    settings = history.settings
    schedule = "+".join(f"{epsilon:g}x{count}" for epsilon, count in settings.schedule)
    return {"mode": settings.mode, "batch": str(settings.batch), "schedule": schedule}


def _agent(settings: Any) -> str:
    changed: Sequence[str] = [
        f"{field.name}={getattr(settings, field.name)}"
        for field in dataclasses.fields(settings)
        if getattr(settings, field.name) != field.default
    ]
    return ":".join([settings.kind, *changed])
