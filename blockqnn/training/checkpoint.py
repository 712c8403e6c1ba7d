"""The state of a training on disk, from which the training goes on after a stop or a crash."""

import hashlib
import io
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch

from blockqnn.storage import write_atomically
from blockqnn.storage.urls import read_url, write_url

log = logging.getLogger(__name__)

DIGEST_BYTES = 32
"""Length of the SHA-256 digest that begins a checkpoint. torch's own format would not notice a
changed bit among the weights."""


@dataclass
class Checkpoint:
    """The file in which a training keeps its state."""

    path: Path
    identity: str
    """Names everything the result depends on. A state with another identity is not used."""
    keep_previous: bool = False
    """Keep the state before the last as `<name>.previous`, in case the disk damages the last."""
    copy: str | None = None
    """fsspec URL, such as s3://bucket/x/checkpoint, to which every state is copied. The copy is
    used if `path` has no state, since a training may go on at another machine."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Values that are added to every state."""

    @property
    def previous(self) -> Path:
        """Where the state before the last one is kept."""
        return self.path.with_name(f"{self.path.name}.previous")

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint atomically. Raises OSError if the disk is full."""
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
        """The saved state, or None if there is none that is whole and this training's own."""
        return self.parse(self.read(), device)

    def read(self) -> bytes | None:
        """The content of the last checkpoint that is whole and this training's own, if any."""
        for path in (self.path, self.previous) if self.keep_previous else (self.path,):
            content = self._own(path, path.read_bytes)
            if content is not None:
                if path != self.path:
                    log.warning("%s is used instead: it is the one before", path)
                    # or the next save would put what is damaged in place of what is whole
                    self.path.unlink(missing_ok=True)
                return content
        if self.copy is None:
            return None
        try:
            return self._own(self.copy, partial(read_url, self.copy))
        except Exception as error:  # each store has its own
            log.warning("%s is not used: %s", self.copy, error)
            return None

    def parse(self, content: bytes | None, device: torch.device) -> dict[str, Any] | None:
        """The state in what `read` returned, with its tensors on the device."""
        return None if content is None else self._state(content, device, self.path)

    def _own(self, place: Path | str, read: Callable[[], bytes]) -> bytes | None:
        """What `read` finds at a place, if it is whole and this training's own."""
        try:
            stored = read()
        except FileNotFoundError:
            return None
        digest, content = stored[:DIGEST_BYTES], stored[DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            log.warning("%s is damaged and is not used", place)
            return None
        own = self._state(content, torch.device("cpu"), place) is not None
        return content if own else None

    def _state(
        self, content: bytes, device: torch.device, path: Path | str
    ) -> dict[str, Any] | None:
        try:
            state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        except Exception as error:  # foreign bytes may raise any; weights_only runs no code in them
            log.warning("%s is no checkpoint and is not used (%s)", path, type(error).__name__)
            return None
        if not isinstance(state, dict) or state.get("identity") != self.identity:
            log.warning("%s belongs to another training and is not used", path)
            return None
        return state
