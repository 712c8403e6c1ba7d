"""The result of a final training, as result.json holds it."""

import subprocess
from pathlib import Path
from typing import Any

import torch

from blockqnn import __version__
from blockqnn.errors import SearchError
from blockqnn.storage import read_json


def read_result(directory: Path) -> dict[str, Any] | None:
    """The result of a training; None while there is none. Raises `SearchError` for a damaged
    file.
    """
    path = directory / "result.json"
    try:
        result = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SearchError(f"{path} is damaged ({error}): delete it to train again") from None
    if not isinstance(result, dict):
        raise SearchError(f"{path} is damaged: delete it to train again")
    return result


def commit() -> str | None:
    """The commit of the checkout that this package runs from, marked when it has changes."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def versions() -> dict[str, str]:
    """Of what computes the result."""
    import timm

    return {"blockqnn": __version__, "torch": torch.__version__, "timm": timm.__version__}
