"""What all settings share: how they are read, and checks that name field, value and remedy."""

import dataclasses
import math
import re
from dataclasses import dataclass
from types import NoneType
from typing import Any, ClassVar, get_args

from pydantic import ConfigDict

from blockqnn.errors import SettingsError

LONGEST_WAIT = 10**9
"""Most seconds that a setting may hold, 31 years: clocks take no larger numbers."""

MOST = 10**6
"""Largest batch, population or replay that a search accepts; more would not fit into memory."""


def require(condition: bool, name: str, value: object, remedy: str) -> None:
    """Raise a `SettingsError` that names setting, value and remedy unless the condition holds."""
    if not condition:
        raise SettingsError(f"{name} is {value!r}: {remedy}")


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of params.yaml, by whose name its checks call its fields.

    A subclass gives that name as `section`; a check raises `SettingsError`.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", strict=True, defer_build=True)
    """How pydantic reads a section: no other names than its fields, no values of other types."""
    _prefix: ClassVar[str]
    """What comes before the name of a field in a sentence, for example `recipe.`."""

    def __init_subclass__(cls, section: str = "") -> None:
        cls._prefix = f"{section}." if section else ""

    def require(self, name: str, condition: bool, remedy: str) -> None:
        """Refuse the value of a field unless the condition holds."""
        require(condition, self._prefix + name, getattr(self, name), remedy)

    def require_least(self, least: int, *names: str) -> None:
        """Refuse fields below a number and infinite ones; null passes in a field that has it."""
        for name in names:
            value, null = getattr(self, name), NoneType in get_args(self.__annotations__[name])
            fits = value is None or least <= value < math.inf
            self.require(name, fits, f"give {least} or more{', or null' * null}")

    def require_positive(self, what: str, *names: str) -> None:
        """Refuse fields that are not finite numbers above 0, called `what` in the remedy."""
        for name in names:
            value = getattr(self, name)
            fits = value is None or 0 < value < math.inf
            self.require(name, fits, f"give {what} greater than 0")

    def require_seconds(self, *names: str) -> None:
        """Refuse fields that are not seconds above 0 that a clock can take."""
        self.require_positive("seconds", *names)
        for name in names:
            fits = getattr(self, name) <= LONGEST_WAIT
            self.require(name, fits, f"give {LONGEST_WAIT:,} seconds or less")

    def require_share(self, *names: str) -> None:
        """Refuse fields that are not from 0 to below 1."""
        for name in names:
            self.require(name, 0 <= getattr(self, name) < 1, "give 0 to below 1")

    def require_default(self, remedy: str, *names: str) -> None:
        """Refuse fields that have neither their default nor an empty text."""
        for name in names:
            self.require(name, getattr(self, name) in (getattr(type(self), name), ""), remedy)

    def require_devices(self, name: str, *devices: str) -> None:
        """Refuse devices of a field that torch does not have."""
        for device in devices:
            known = re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device) is not None
            require(known, self._prefix + name, device, "give cpu, cuda, cuda:N, mps or auto")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as in params.yaml and in the journal."""
        return dataclasses.asdict(self)
