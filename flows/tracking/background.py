"""Writing a run to MLflow behind the flow, with one warning where MLflow does not take it.

MLflow is imported by the first sync, not before: it takes seconds that nobody should wait for.
"""

import logging
from typing import Protocol

from flows.background import BackgroundWork
from flows.tracking.store import without_password

log = logging.getLogger(__name__)


class MLflowRuns(Protocol):
    """A search or a run of final trainings that `sync` writes to MLflow at `uri`."""

    name: str
    uri: str

    def sync(self) -> int:
        """Write what MLflow lacks; returns the number of MLflow runs written."""


class BackgroundWriter(BackgroundWork):
    """Keeps MLflow up to date behind a running flow, which never waits for it.

    Trouble with MLflow (server down, disk full, database locked) is logged once until it is over;
    what was missed is written by the next sync that succeeds.
    """

    def __init__(self, runs: MLflowRuns) -> None:
        """Start with a first sync: an earlier process may have left something behind."""
        self._runs = runs
        super().__init__(runs.sync, self._log)

    def _log(self, error: Exception) -> None:
        log.warning(
            "MLflow at %s is not up to date (%s); the flow goes on and catches up later, "
            "or run: blockqnn track --name %s",
            without_password(self._runs.uri),
            one_line(error),
            self._runs.name,
        )


def one_line(error: Exception) -> str:
    """What MLflow raised, in one line for the user."""
    if "error code 401" in str(error):
        return (
            "it wants the MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD it was begun with"
        )
    return str(error).partition("\n")[0] or type(error).__name__
