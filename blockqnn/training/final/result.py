"""The result of a final training, as result.json holds it."""

import subprocess
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from blockqnn import __version__
from blockqnn.cost.match import Matched
from blockqnn.errors import SearchError
from blockqnn.storage import read_json


class ResultImages(TypedDict):
    """The images of a result: the plan's label and the values of an `ImageFacts`."""

    label: str
    name: str
    classes: list[str]
    in_channels: int
    image_size: int
    fingerprint: str
    train_images: int
    held_out_images: int
    mean: list[float]
    std: list[float]


class TrainingResult(TypedDict):
    """The content of result.json.

    `accuracy` is the last held-out accuracy in percent, None where nothing was held out or the
    training diverged. `network` and `recipe` are the settings. What a pipeline's stage keeps of a
    result has no `begun` and `finished` (seconds since 1970).
    """

    version: int
    label: str
    block: str | None
    timm: str | None
    split: str
    seed: int
    identity: str
    outcome: str
    reason: str
    curve: list[dict[str, float]]
    accuracy: float | None
    parameters: int
    macs: int
    seconds: float
    begun: NotRequired[float]
    finished: NotRequired[float]
    device: str
    threads: int | None
    devices: int
    precision: str
    data: ResultImages
    network: dict[str, Any] | None
    matched: NotRequired[Matched | None]
    recipe: dict[str, Any]
    commit: str | None
    versions: dict[str, str]


def read_result(directory: Path) -> TrainingResult | None:
    """The result of a training; None while there is none.

    Raises `SearchError` for a damaged file.
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
    return cast(TrainingResult, result)


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
    """Versions of the packages that compute a result."""
    import timm
    import torch

    return {"blockqnn": __version__, "torch": torch.__version__, "timm": timm.__version__}
