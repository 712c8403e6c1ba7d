"""A changed setting never slips into a search that was begun with another."""

from dataclasses import replace
from pathlib import Path

from blockqnn.agents import EpsilonSchedule
from blockqnn.errors import SearchError
from blockqnn.params import flat
from blockqnn.search.records import Task
from blockqnn.settings import Settings

HARMLESS = ("workers", "tracking", "data.root", "data.download")
"""Beginnings of names of settings that change how fast results come, not what they mean."""


def refuse_changes(
    directory: Path, begun: Settings, now: Settings, begun_task: Task, task: Task
) -> None:
    """Raise `SearchError` when a search begun with the settings `begun` may not go on with `now`.

    The schedule may grow at its end; `HARMLESS` settings may change; the images may not.
    """
    old, new = flat(begun.to_dict()), flat(now.to_dict())
    names = sorted(old.keys() | new.keys())
    decisive = (".kind", ".name", ".version")  # the others depend on them
    names.sort(key=lambda name: not name.endswith(decisive))
    for name in names:
        if old.get(name) != new.get(name) and not name.startswith(HARMLESS) and name != "schedule":
            raise SearchError(
                f"{name} is {new.get(name)!r}, but the search in {directory} was begun with "
                f"{old.get(name)!r}: set it back, or begin another search under a new name"
            )
    changed = EpsilonSchedule(now.schedule).differs_from_prefix(begun.schedule)
    if changed is not None:
        raise SearchError(
            f"schedule is {now.schedule!r}, but the search in {directory} was begun with "
            f"{begun.schedule!r} and they differ at iteration {changed}: a schedule may only grow "
            "at its end; set it back, or begin another search under a new name"
        )
    if begun_task.constant_guess is None:  # journals from before it was there
        task = replace(task, constant_guess=None, smallest_class=None)
    if begun_task != task:
        raise SearchError(
            f"the images of data.name {task.data} are not those that the search in {directory} was "
            f"begun with (fingerprint {task.fingerprint}, then {begun_task.fingerprint}): restore "
            "them, or begin another search under a new name"
        )
