"""Prefect automations that make a search go on when its process, worker or machine is gone.

A flow run that crashed is scheduled again as it is, with the same parameters; the search then goes
on from its journal. A flow run that a user stopped, cancelled or that failed with an error is left
alone. `blockqnn serve` makes them for its work pool; for another server's pool, once:

    from flows.servers.automations import watch_over
    watch_over("http://HOST:4200/api", "POOL")

Prefect's own client is not used: importing it takes 1.5 s and 60 MB, and it gives up a server that
hangs after seven minutes, not one.
"""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from flows.servers.prefect_api import prefect_call

PAUSE = 60.0
"""Seconds between a crash and the restart. A worker reports a crash twice, the second time when it
has loaded the flow for its hooks: a run restarted by then would be taken for crashed again."""

RESTARTS = 50
"""Restarts of one flow run at most, counted from its first start."""

CRASHES = 30
"""Crashes of one flow run within `CRASHES_WITHIN` that end all restarts. `RESTARTS` does not count
runs that die before they begin, for want of a package, say."""

CRASHES_WITHIN = 3600.0
"""Seconds in which `CRASHES` crashes of one flow run end all restarts."""

HEARTBEAT = 30
"""Seconds between two heartbeats of a flow run."""

LOST = 180.0
"""Seconds without a heartbeat after which a flow run counts as crashed: its machine is gone."""

_ENDED = ("Completed", "Failed", "Cancelled")


def watch_over(url: str, pool: str) -> None:
    """Create or renew the automations for runs in a work pool on the server at `url`.

    Raises OSError when the server does not take them.
    """
    remove(url, pool)
    create = partial(_create, url, pool)
    restart = create(
        "restart",
        f"Starts a flow run again {PAUSE:.0f} s after it crashed.",
        {
            "type": "change-flow-run-state",
            "state": "SCHEDULED",
            "name": "AwaitingRetry",
            "message": f"Crashed; the automation {pool}-restart starts it again.",
        },
        posture="Proactive",
        match={"prefect.run-count": [str(count) for count in range(1, RESTARTS + 1)]},
        after=_events("Crashed"),
        expect=_events("Scheduled", "AwaitingRetry", "Pending", "Running", *_ENDED),
        within=PAUSE,
    )
    create(
        "breaker",
        f"Pauses {pool}-restart when one run crashes again and again.",
        {"type": "pause-automation", "source": "selected", "automation_id": restart},
        posture="Reactive",
        expect=_events("Crashed"),
        threshold=CRASHES,
        within=CRASHES_WITHIN,
    )
    create(
        "loss",
        "Marks a flow run as crashed that sends no heartbeat any more.",
        {
            "type": "change-flow-run-state",
            "state": "CRASHED",
            "message": f"No heartbeat for {LOST:.0f} s: its process or its machine is gone.",
        },
        posture="Proactive",
        after=_events("heartbeat"),
        expect=_events("heartbeat", "AwaitingRetry", "Crashed", *_ENDED),
        within=LOST,
    )


def remove(url: str, pool: str) -> None:
    """Delete a work pool's automations: what is stopped from now on stays stopped; may raise
    OSError.
    """
    names = {"name": {"any_": [f"{pool}-{what}" for what in ("restart", "breaker", "loss")]}}
    for found in prefect_call(f"{url}/automations/filter", {"automations": names}):
        prefect_call(f"{url}/automations/{found['id']}", method="DELETE")


def restart_missed(url: str, pool: str, since: datetime) -> None:
    """Schedule again the flow runs that crashed after `since` and were not restarted: a busy SQLite
    loses an event now and then, and with it the automation's cue. Raises OSError.
    """
    late = datetime.now(UTC) - timedelta(seconds=2 * PAUSE)
    for run in _runs(url, pool, "CRASHED"):
        crashed = datetime.fromisoformat(run["state"]["timestamp"])
        if since < crashed < late and 1 <= run["run_count"] <= RESTARTS:
            state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "It had crashed."}
            prefect_call(f"{url}/flow_runs/{run['id']}/set_state", {"state": state})


def mark_crashed(url: str, pool: str) -> None:
    """Mark as crashed the flow runs of a work pool that has no worker, which Prefect never does.
    Raises OSError.
    """
    for run in _runs(url, pool, "RUNNING", "PENDING", "CANCELLING"):
        state = {"type": "CRASHED", "message": "Its worker was stopped."}
        prefect_call(f"{url}/flow_runs/{run['id']}/set_state", {"state": state, "force": True})


def _runs(url: str, pool: str, *types: str) -> Any:
    """Flow runs of a work pool in a state of one of these types, the last to end first."""
    query = {
        "flow_runs": {"state": {"type": {"any_": types}}},
        "work_pools": {"name": {"any_": [pool]}},
        "sort": "END_TIME_DESC",
    }
    return prefect_call(f"{url}/flow_runs/filter", query)


def _create(
    url: str,
    pool: str,
    what: str,
    description: str,
    action: dict[str, Any],
    *,
    match: dict[str, Any] | None = None,
    **trigger: Any,
) -> str:
    """Make an automation that watches each flow run of the pool by itself; returns its id."""
    automation = {
        "name": f"{pool}-{what}",
        "description": description,
        "trigger": {
            "type": "event",
            "match": {"prefect.resource.id": "prefect.flow-run.*", **(match or {})},
            "match_related": {"prefect.resource.role": "work-pool", "prefect.resource.name": pool},
            "for_each": ["prefect.resource.id"],
            **trigger,
        },
        "actions": [action],
    }
    return str(prefect_call(f"{url}/automations/", automation)["id"])


def _events(*names: str) -> list[str]:
    return [f"prefect.flow-run.{name}" for name in names]
