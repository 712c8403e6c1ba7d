"""The state of a training on disk: whole, its own, and with the one before it to fall back on."""

import hashlib
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch

from blockqnn.storage import write_atomically
from blockqnn.storage.urls import read_url, write_url

log = logging.getLogger(__name__)

DIGEST_BYTES = 32


@dataclass
class Checkpoint:
    """Where a training keeps its state, and what makes that state its own.

    `identity` names everything the result depends on: a checkpoint that carries another is not
    used. `keep_previous` keeps the one before beside it, as `<name>.previous`, for the case that
    the disk damages the last. `copy` is an fsspec URL, say s3://bucket/x/checkpoint, to which every
    state is copied, and from where it is taken when `path` has none: the machine may be another.
    `facts` go into every state.
    """

    path: Path
    identity: str
    keep_previous: bool = False
    copy: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def previous(self) -> Path:
        """Where the one before is kept."""
        return self.path.with_name(f"{self.path.name}.previous")

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint, atomically. Raises OSError when the disk is full."""
        # through memory: torch's own writer hides the OSError of a full disk in a RuntimeError
        buffer = io.BytesIO()
        torch.save({**state, **self.facts, "identity": self.identity}, buffer)
        content = buffer.getbuffer()

        def write(file: BinaryIO) -> None:
            file.write(hashlib.sha256(content).digest())
            file.write(content)

        if self.keep_previous and self.path.exists():
            self.path.replace(self.previous)
        write_atomically(self.path, write)
        if self.copy is not None:
            try:
                write_url(self.copy, self.path.read_bytes())
            except Exception as error:  # each store has its own; the training itself goes on
                log.warning("the checkpoint is not copied to %s: %s", self.copy, error)

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The saved state; None when there is none, it is damaged, or it belongs to something else.

        Torch's format does not notice a changed bit among the weights: the digest before it does.
        """
        return self.parse(self.read(), device)

    def read(self) -> bytes | None:
        """The last content that is whole and this training's own."""
        paths = (self.path, self.previous) if self.keep_previous else (self.path,)
        for path in paths:
            content = self._content(path)
            if content is not None and self._state(content, torch.device("cpu"), path) is not None:
                if path != self.path:
                    log.warning("%s is used instead: it is the one before", path)
                    # or the next save would put what is damaged in place of what is whole
                    self.path.unlink(missing_ok=True)
                return content
        return None if self.copy is None else self._copied(self.copy)

    def parse(self, content: bytes | None, device: torch.device) -> dict[str, Any] | None:
        """The state in what `read` returned."""
        return None if content is None else self._state(content, device, self.path)

    def remove(self) -> None:
        """Delete it, and the one before."""
        self.path.unlink(missing_ok=True)
        self.previous.unlink(missing_ok=True)

    def _copied(self, url: str) -> bytes | None:
        try:
            content = _whole(read_url(url), url)
        except FileNotFoundError:
            return None
        except Exception as error:  # each store has its own
            log.warning("%s is not used: %s", url, error)
            return None
        own = content is not None and self._state(content, torch.device("cpu"), url)
        return content if own else None

    def _content(self, path: Path) -> bytes | None:
        try:
            return _whole(path.read_bytes(), path)
        except FileNotFoundError:
            return None

    def _state(
        self, content: bytes, device: torch.device, path: Path | str
    ) -> dict[str, Any] | None:
        try:
            state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        except Exception as error:  # of foreign bytes, it may be any; more than weights never runs
            log.warning("%s is no checkpoint and is not used (%s)", path, type(error).__name__)
            return None
        if not isinstance(state, dict) or state.get("identity") != self.identity:
            log.warning("%s belongs to another training and is not used", path)
            return None
        return state


def _whole(stored: bytes, path: Path | str) -> bytes | None:
    digest, content = stored[:DIGEST_BYTES], stored[DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        log.warning("%s is damaged and is not used", path)
        return None
    return content
