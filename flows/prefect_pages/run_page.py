"""A run's page in Prefect, published behind the run: it never waits for a server that is gone."""

import base64
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from flows.background import BackgroundWork

log = logging.getLogger(__name__)

Table = Sequence[Mapping[str, Any]]


class Publisher:
    """Publishes what a run has come to as one Prefect artifact, a page that is written anew.

    Create it inside the flow: the artifact then belongs to its run.
    """

    def __init__(self, name: str) -> None:
        """`name` is the run's, and makes the artifact's key."""
        self._name = name
        self._page = ""
        self._id: UUID | None = None
        self._behind = BackgroundWork(self._publish, self._warn)

    def publish(self, page: str) -> None:
        """Take a page, in Markdown, and return at once; one taken before and not yet published is
        skipped.
        """
        self._page = page
        self._behind.request()

    def close(self, timeout: float = 10.0) -> None:
        """Publish the latest page, for `timeout` seconds at most."""
        self._behind.close(timeout)

    def _publish(self) -> None:
        page, self._page = self._page, ""
        if not page:
            return
        if self._id is None:
            key = re.sub(r"[^a-z0-9]+", "-", self._name.lower()).strip("-")
            made = create_markdown_artifact(page, key=key, description=f"What {self._name} came to")
            assert isinstance(made, UUID)  # not to be awaited: this is a thread of its own
            self._id = made
        else:
            get_client(sync_client=True).update_artifact(self._id, ArtifactUpdate(data=page))

    def _warn(self, error: Exception) -> None:
        log.warning("Prefect does not take the run's page: %s", error)


def page_of(tables: Mapping[str, Table], link: str = "", picture: Path | None = None) -> str:
    """A page in Markdown: tables under their headings, a sentence with a link, a PNG if there is
    one.
    """
    parts = [f"## {heading}\n\n{_table(rows)}" for heading, rows in tables.items()]
    if link:
        parts.append(link)
    if picture is not None and picture.exists():
        content = base64.b64encode(picture.read_bytes()).decode()
        parts.append(f"![{picture.stem.replace('_', ' ')}](data:image/png;base64,{content})")
    return "\n\n".join(parts)


def _table(rows: Table) -> str:
    columns = list(rows[0]) if rows else ["nothing yet"]
    body = [[_cell(column, row[column]) for column in columns] for row in rows]
    lines = [columns, ["---"] * len(columns), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(column: str, value: Any) -> str:
    text = "-" if value is None else str(value).replace("|", "\\|")
    return f"`{text}`" if column == "code" else text
