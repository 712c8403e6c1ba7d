"""Prefect automations that make a search go on when its process, worker or machine is gone.

A flow run that crashed is scheduled again as it is, with the same parameters; the search then goes
on from its journal. A flow run that a user stopped, cancelled or that failed with an error is left
alone. `blockqnn serve` makes them for its work pool; for another server's pool, once:

    from flows.servers.automations import watch_over
    watch_over("http://HOST:4200/api", "POOL")
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from flows.servers.prefect_api import prefect_call

PAUSE = 60.0
"""Seconds between a crash and the restart. A worker reports a crash twice, the second time when it
has loaded the flow for its hooks: what runs again by then would be taken for crashed, too."""

RESTARTS = 50
"""Times that a flow run is started again after it had begun to run."""

CRASHES = 30
"""Reports of crashes of one run within `BREATH` after which nothing is restarted any more.
`RESTARTS` does not see runs that die before they begin, of a package that is gone, say."""

BREATH = 3600.0
"""Seconds."""

HEARTBEAT = 30
"""Seconds between two signs of life that a flow run sends."""

LOST = 180.0
"""Seconds without one after which it counts as crashed, its machine being gone."""

BEGUN = ["Scheduled", "AwaitingRetry", "Pending", "Running"]
ENDED = ["Completed", "Failed", "Cancelled", "Crashed"]


def watch_over(url: str, pool: str) -> None:
    """Create or renew the automations for runs in a work pool on the server at `url`."""
    remove(url, pool)
    restart = _create(url, _restart(pool))
    _create(url, _breaker(pool, restart))
    _create(url, _loss(pool))


def remove(url: str, pool: str) -> None:
    """Delete the automations: what is stopped from now on stays stopped."""
    names = {"name": {"any_": [f"{pool}-{what}" for what in ("restart", "breaker", "loss")]}}
    for found in prefect_call(f"{url}/automations/filter", {"automations": names}):
        prefect_call(f"{url}/automations/{found['id']}", method="DELETE")


def restart_missed(url: str, pool: str, since: datetime) -> None:
    """Start what crashed after `since` and was left lying: a busy SQLite loses an event now and
    then, and with it the automation's cue. Raises OSError.
    """
    query = {
        "flow_runs": {"state": {"type": {"any_": ["CRASHED"]}}},
        "work_pools": {"name": {"any_": [pool]}},
        "sort": "END_TIME_DESC",
    }
    late = datetime.now(UTC) - timedelta(seconds=2 * PAUSE)
    for run in prefect_call(f"{url}/flow_runs/filter", query):
        crashed = datetime.fromisoformat(run["state"]["timestamp"])
        if since < crashed < late and 1 <= run["run_count"] <= RESTARTS:
            state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "It had crashed."}
            prefect_call(f"{url}/flow_runs/{run['id']}/set_state", {"state": state})


def _create(url: str, automation: dict[str, Any]) -> str:
    return str(prefect_call(f"{url}/automations/", automation)["id"])


def _restart(pool: str) -> dict[str, Any]:
    """From Crashed back to Scheduled, while the run has not been started too often."""
    begun = {"prefect.run-count": [str(count) for count in range(1, RESTARTS + 1)]}
    others = [state for state in (*BEGUN, *ENDED) if state != "Crashed"]
    return {
        "name": f"{pool}-restart",
        "description": f"Starts a flow run again {PAUSE:.0f} s after it crashed.",
        "trigger": _trigger(
            pool,
            posture="Proactive",
            after=_events("Crashed"),
            expect=_events(*others),
            match=begun,
            within=PAUSE,
        ),
        "actions": [
            {
                "type": "change-flow-run-state",
                "state": "SCHEDULED",
                "name": "AwaitingRetry",
                "message": f"Crashed; the automation {pool}-restart starts it again.",
            }
        ],
    }


def _breaker(pool: str, restart: str) -> dict[str, Any]:
    """Runs that crash again and again before they begin are not started for ever."""
    return {
        "name": f"{pool}-breaker",
        "description": f"Pauses {pool}-restart when one run crashes again and again.",
        "trigger": _trigger(pool, expect=_events("Crashed"), threshold=CRASHES, within=BREATH),
        "actions": [{"type": "pause-automation", "source": "selected", "automation_id": restart}],
    }


def _loss(pool: str) -> dict[str, Any]:
    """Running, but silent: its worker, which would have said so, is gone too."""
    return {
        "name": f"{pool}-loss",
        "description": "Marks a flow run as crashed that sends no heartbeat any more.",
        "trigger": _trigger(
            pool,
            posture="Proactive",
            after=["prefect.flow-run.heartbeat"],
            expect=["prefect.flow-run.heartbeat", *_events("AwaitingRetry", *ENDED)],
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


def _events(*states: str) -> list[str]:
    return [f"prefect.flow-run.{state}" for state in states]
