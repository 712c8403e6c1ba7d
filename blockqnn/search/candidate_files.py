"""The files of one candidate: where they lie, and its outcome as soon as it is known."""

import hashlib
import json
import logging
from pathlib import Path

from blockqnn.search.outcome import Outcome
from blockqnn.settings import Settings
from blockqnn.space import Block
from blockqnn.storage import read_json, write_atomically

log = logging.getLogger(__name__)


def candidate_directory(directory: Path, number: int) -> Path:
    """Directory of the work on one candidate until its outcome is in the journal."""
    return directory / "candidates" / f"{number:06d}"


def keep_outcome(directory: Path, identity: str, outcome: Outcome) -> None:
    """Put an outcome on disk until its turn in the journal comes. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"identity": identity, "outcome": outcome.to_dict()})
    write_atomically(directory / "outcome.json", lambda file: file.write(text.encode()))


def kept_outcome(directory: Path, identity: str) -> Outcome | None:
    """The outcome that `keep_outcome` put on disk for the same work, None for none of use."""
    path = directory / "outcome.json"
    try:
        kept = read_json(path)
        return Outcome.from_dict(kept["outcome"]) if kept["identity"] == identity else None
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("%s is not used, the candidate is trained again: %s", path, error)
    return None


def identity(block: Block, settings: Settings, fingerprint: str, rung: int = 0) -> str:
    """A hash of all that a block's outcome on a rung depends on; `fingerprint` is the data set's.

    The settings have what the block's network has of its own.
    """
    network, recipe = settings.network.described(), settings.recipe.described()
    parts: list[object] = [str(block), settings.seed, network, recipe, fingerprint]
    parts += [settings.recipe_of(each).described() for each in range(1, rung + 1)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


WEIGHTS = "weights"
"""File of a candidate's weights at the end of its training, from which it may go on."""


def candidate_url(place: str, number: int) -> str:
    """URL of the work on a candidate, below that of the search."""
    return f"{place.rstrip('/')}/candidates/{number:06d}"
