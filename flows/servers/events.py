"""Prefect's events, sent by a process that does not depend on who takes them."""

import time
from typing import Any

from prefect.events.clients import PrefectEventsClient
from prefect.events.schemas.events import Event
from prefect.events.worker import EventsWorker, emit_events_to_cloud

PAUSE = 30.0
"""Seconds without another try, after a server did not answer."""


class DroppedEvents(PrefectEventsClient):
    """A client that drops what a server that is gone does not take: Prefect's own tries ten times
    for each event, and holds up the end of the flow until all were tried.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._gone_until = 0.0

    async def _emit(self, event: Event) -> None:
        if time.monotonic() < self._gone_until:
            return
        try:
            await super()._emit(event)
        except Exception:  # of the socket, of its protocol, of the server's refusal
            self._gone_until = time.monotonic() + PAUSE


def drop_events_in_vain() -> None:
    """Let the events of this process be dropped while the server is gone, unless it is Prefect's
    cloud, which has a client of its own. Before the first flow.
    """
    if emit_events_to_cloud():
        return
    EventsWorker.set_client_override(DroppedEvents)
