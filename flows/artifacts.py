"""Prefect's tables of a run, published behind it: it never waits for a server that is gone."""

import logging
import re
from typing import Any

from prefect.artifacts import create_table_artifact

from flows.background import BackgroundWork

log = logging.getLogger(__name__)

Table = list[dict[str, Any]]

DESCRIPTIONS = {
    "best": "Best blocks so far",
    "progress": "Progress",
    "results": "Final trainings",
    "evaluations": "Evaluations on the test images",
}


class Publisher:
    """Publishes the tables of a run as Prefect artifacts, one of each kind, in its latest version.

    Create it inside the flow: the artifacts then belong to its run.
    """

    def __init__(self, name: str) -> None:
        """`name` is the run's, and part of the artifacts' keys."""
        self._slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        self._latest: dict[str, Table] = {}
        self._behind = BackgroundWork(self._publish, self._warn)

    def publish(self, **tables: Table) -> None:
        """Take tables by kind, the keys of `DESCRIPTIONS`, and return at once; tables taken before
        and not yet published are skipped.
        """
        self._latest = tables
        self._behind.request()

    def close(self, timeout: float = 10.0) -> None:
        """Publish the latest tables, for `timeout` seconds at most."""
        self._behind.close(timeout)

    def _publish(self) -> None:
        tables, self._latest = self._latest, {}
        for kind, table in tables.items():
            key = f"{kind}-{self._slug}"
            create_table_artifact(key=key, table=table, description=DESCRIPTIONS[kind])

    def _warn(self, error: Exception) -> None:
        log.warning("Prefect does not take the run's tables: %s", error)
