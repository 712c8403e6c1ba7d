"""Prefect's events, among them those that task runs consist of, sent to a server that may go."""

from prefect.events.clients import PrefectEventsClient
from prefect.events.worker import EventsWorker, emit_events_to_cloud


def try_events_once() -> None:
    """Let an event that a server does not take be kept for a later one's connection, unless it is
    Prefect's cloud, which has a client of its own: by default ten tries for each, seconds apart,
    hold up the end of a flow. Before the first flow.

    No class of our own, as Prefect sends events by its own clients alone.
    """
    if not emit_events_to_cloud():
        EventsWorker.set_client_override(PrefectEventsClient, reconnection_attempts=1)
