"""Prefect's tables of a run, published behind it: it never waits for a server that is gone."""

import contextvars
import logging
import re
import threading
from typing import Any

from prefect.artifacts import create_table_artifact

log = logging.getLogger(__name__)

Table = list[dict[str, Any]]

DESCRIPTIONS = {
    "best": "Best blocks so far",
    "progress": "Progress",
    "results": "Final trainings",
    "evaluations": "Evaluations on the test images",
}


class Publisher:
    """Tables of a run as Prefect artifacts, one of each kind, the latest version.

    Create it inside the flow: the artifacts then belong to its run.
    """

    def __init__(self, name: str) -> None:
        self._slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        self._latest: dict[str, Table] = {}
        self._wanted = threading.Event()
        self._closing = False
        self._warned = False
        context = contextvars.copy_context()  # which names the flow run
        self._thread = threading.Thread(target=context.run, args=[self._run], daemon=True)
        self._thread.start()

    def publish(self, **tables: Table) -> None:
        """Take tables by kind (`DESCRIPTIONS`) and return at once; those not yet published are
        skipped.
        """
        self._latest = tables
        self._wanted.set()

    def close(self, timeout: float = 10.0) -> None:
        """Publish what is left, for `timeout` seconds at most."""
        self._closing = True
        self._wanted.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._closing:
            self._wanted.wait()
            self._wanted.clear()
            tables, self._latest = self._latest, {}
            try:
                for kind, table in tables.items():
                    create_table_artifact(
                        key=f"{kind}-{self._slug}",
                        table=table,
                        description=DESCRIPTIONS[kind],
                    )
                self._warned = self._warned and not tables
            except Exception as error:  # Prefect's tables may be missing; the journal has it all
                if not self._warned:
                    log.warning("Prefect does not take the run's tables: %s", error)
                self._warned = True
