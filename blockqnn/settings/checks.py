"""What all settings share: how they are read, and checks that name field, value and remedy."""

import math
from typing import Any, ClassVar

from blockqnn.errors import SettingsError

LONGEST_WAIT = 10**9
"""Most seconds that a setting may hold, 31 years: clocks take no larger numbers."""


class Section:
    """A section of params.yaml: no other names than its fields, no values of other types."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "strict": True,
        "use_attribute_docstrings": True,
    }


def require(condition: bool, name: str, value: object, remedy: str) -> None:
    """Refuse a value unless the condition holds."""
    if not condition:
        raise SettingsError(f"{name} is {value!r}: {remedy}")


def positive(name: str, value: float, what: str) -> None:
    """Refuse what is not a finite number above 0."""
    require(math.isfinite(value) and value > 0, name, value, f"give {what} greater than 0")


def seconds(name: str, value: float) -> None:
    """Refuse what is not a number of seconds above 0 that a clock can take."""
    positive(name, value, "seconds")
    require(value <= LONGEST_WAIT, name, value, f"give {LONGEST_WAIT:,} seconds or less")


def share(name: str, value: float) -> None:
    """Refuse what is not from 0 to below 1."""
    require(0 <= value < 1, name, value, "give 0 to below 1")


def check_device(name: str, device: str) -> None:
    """Refuse what is not the name of a device."""
    kind, _, number = device.partition(":")
    known = device in ("auto", "cpu", "mps") or (
        kind == "cuda" and (number.isdecimal() or not number)
    )
    require(known and not device.endswith(":"), name, device, "give cpu, cuda, cuda:N, mps or auto")


MOST = 10**6
"""Largest batch, population or replay that a search accepts; more would not fit into memory."""
