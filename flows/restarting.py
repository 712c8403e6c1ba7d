"""Prefect automations that make a search go on when its process, worker or machine is gone.

A flow run that crashed is scheduled again as it is, with the same parameters; the search then goes
on from its journal. A flow run that a user stopped, cancelled or that failed with an error is left
alone. They are the server's: they also serve workers on other machines.
"""

from __future__ import annotations

from typing import Any

from flows.environment import prefect_call

RESTARTS = 5
"""Times that a flow run is started again after it had begun to run."""

CRASHES = 10
"""Crashes of one run within `BREATH` after which nothing is restarted any more. `RESTARTS` does not
see runs that die before they begin, of a package that cannot be imported, say."""

BREATH = 600.0
"""Seconds."""

HEARTBEAT = 30
"""Seconds between two signs of life that a flow run sends."""

LOST = 180.0
"""Seconds without one after which it counts as crashed, its machine being gone."""

RESTART, BREAKER, LOSS = (f"blockqnn-{what}" for what in ("restart", "breaker", "loss"))


def watch_over(url: str, pool: str) -> None:
    """Create or renew the automations for runs in a work pool on the server at `url`."""
    remove(url)
    restart = _create(url, _restart(pool))
    _create(url, _breaker(pool, restart))
    _create(url, _loss(pool))


def remove(url: str) -> None:
    """Delete the automations: what is stopped from now on stays stopped."""
    names = {"name": {"any_": [RESTART, BREAKER, LOSS]}}
    for found in prefect_call(f"{url}/automations/filter", {"automations": names}):
        prefect_call(f"{url}/automations/{found['id']}", method="DELETE")


def _create(url: str, automation: dict[str, Any]) -> str:
    return str(prefect_call(f"{url}/automations/", automation)["id"])


def _restart(pool: str) -> dict[str, Any]:
    """From Crashed back to Scheduled, while the run has not been started too often."""
    begun = {"prefect.run-count": [str(count) for count in range(1, RESTARTS + 1)]}
    return {
        "name": RESTART,
        "description": f"Starts a crashed flow run again, {RESTARTS} times at most.",
        "trigger": _trigger(pool, expect=["prefect.flow-run.Crashed"], match=begun),
        "actions": [
            {
                "type": "change-flow-run-state",
                "state": "SCHEDULED",
                "name": "AwaitingRetry",
                "message": f"Crashed; the automation {RESTART} starts it again.",
            }
        ],
    }


def _breaker(pool: str, restart: str) -> dict[str, Any]:
    """Runs that crash again and again before they begin are not started for ever."""
    return {
        "name": BREAKER,
        "description": f"Pauses {RESTART} when one run crashes {CRASHES} times in ten minutes.",
        "trigger": _trigger(
            pool, expect=["prefect.flow-run.Crashed"], threshold=CRASHES, within=BREATH
        ),
        "actions": [{"type": "pause-automation", "source": "selected", "automation_id": restart}],
    }


def _loss(pool: str) -> dict[str, Any]:
    """Running, but silent: its worker, which would have said so, is gone too."""
    ends = ["Completed", "Failed", "Cancelled", "Crashed", "AwaitingRetry"]
    return {
        "name": LOSS,
        "description": "Marks a flow run as crashed that sends no heartbeat any more.",
        "trigger": _trigger(
            pool,
            posture="Proactive",
            after=["prefect.flow-run.heartbeat"],
            expect=["prefect.flow-run.heartbeat", *(f"prefect.flow-run.{end}" for end in ends)],
            within=LOST,
        ),
        "actions": [
            {
                "type": "change-flow-run-state",
                "state": "CRASHED",
                "message": f"No heartbeat for {LOST:.0f} s: its process or its machine is gone.",
            }
        ],
    }


def _trigger(
    pool: str, *, match: dict[str, Any] | None = None, posture: str = "Reactive", **rest: Any
) -> dict[str, Any]:
    """A trigger for each flow run by itself, of those that a worker of the pool runs."""
    return {
        "type": "event",
        "posture": posture,
        "match": {"prefect.resource.id": "prefect.flow-run.*", **(match or {})},
        "match_related": {
            "prefect.resource.role": "work-pool",
            "prefect.resource.name": pool,
        },
        "for_each": ["prefect.resource.id"],
        **rest,
    }
