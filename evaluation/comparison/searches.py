"""Finished searches, real trainings and all, as courses to compare: from their journals."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from blockqnn.errors import UserError
from blockqnn.search.history import History
from evaluation.comparison.agents import Unit
from evaluation.comparison.run import About, AgentRun, Score, _Best

HARMLESS = ("seed", "agent", "workers", "tracking")
USE = ("mode", "batch", "schedule")
"""How an agent is used: it may differ between agents, as their settings do."""


def courses_of(searches: Mapping[str, History], unit: Unit) -> list[AgentRun]:
    """A course a search, grouped by agent, as long as the shortest of them; raises `UserError`
    where they cannot be compared.
    """
    check_comparable(searches)
    labels = _labels(searches)
    records = {name: _Best(unit) for name in searches}
    for name, history in searches.items():
        chance = history.task.chance
        for result in history.results:
            if unit == "trainings" and result.outcome.kind == "infeasible":
                continue  # refused by its cost, as the budget of every agent refuses it
            accuracy = result.outcome.accuracy
            score = Score(result.reward, chance if accuracy is None else accuracy)
            if result.outcome.kind == "stopped":  # a predicted reward is nobody's best
                score = Score(chance, chance)
            records[name].add(result.candidate.key, score)
    for name, record in records.items():
        if not len(record):
            raise UserError(f"the search {name} has trained nothing: compare searches that did")
    budget = min(len(record) for record in records.values())
    courses = [
        records[name].course(labels[name], history.settings.seed, budget)
        for name, history in searches.items()
    ]
    by_label: dict[str, list[int]] = {}
    for course in courses:
        by_label.setdefault(course.label, []).append(course.seed)
    wanted = sorted({course.seed for course in courses})
    for label, seeds in by_label.items():
        if sorted(seeds) != wanted:
            raise UserError(
                f"{label} has the seeds {sorted(seeds)}, all agents together {wanted}: name one "
                "search for every agent and seed"
            )
    order = list(by_label)
    return sorted(courses, key=lambda course: (order.index(course.label), course.seed))


def check_comparable(searches: Mapping[str, History]) -> None:
    """Raise `UserError` unless all are finished, have one budget, and differ in agent and seed."""
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
    """The settings in which searches that are compared may not differ; where the images lie is
    none, their fingerprint is looked at.
    """
    tree = history.settings.to_dict()
    tree["data"] = {k: v for k, v in tree["data"].items() if k not in ("root", "download")}
    return {part: value for part, value in tree.items() if part not in (*HARMLESS, *USE)}


def subject_of(searches: Mapping[str, History]) -> About:
    """What a report says about these searches."""
    task = next(iter(searches.values())).task
    return About(
        title=f"Agents in real searches, {task.data}",
        about=f"{len(searches)} searches on {task.train_images:,} training images, rewards from "
        f"{task.held_out_images:,} held-out ones. The pick is the candidate with the best reward, "
        "its accuracy the held-out one.",
        measure="reward",
        measured="reward of the pick",
    )


def _labels(searches: Mapping[str, History]) -> dict[str, str]:
    """Name and settings of each search's agent; how it is used where that differs."""
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
