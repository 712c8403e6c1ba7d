"""Settings of the search space, the section `space` of params.yaml."""

from dataclasses import dataclass
from typing import Literal

from blockqnn.settings.checks import Section
from blockqnn.space import LONGEST, VERSIONS, Space


@dataclass(frozen=True, kw_only=True)
class SpaceSettings(Section, section="space"):
    """Which blocks may be proposed."""

    version: Literal["v1", "v2"] = "v1"
    """v1 has the 2018 paper's layers; v2 has separable convolutions for its 3x3 and 5x5 ones, and
    poolings of 3x3 only (our reading of the journal version)."""
    max_index: int = None  # type: ignore[assignment]  # set below: a number from then on
    """Most layers of a block with its terminal; by default 23 in v1 (the paper) and 12 in v2."""
    max_width: int | None = None
    """Most leaves of a block; null means no limit in v1 and 4 in v2."""

    def __post_init__(self) -> None:
        self.require("version", self.version in VERSIONS, "choose v1 or v2")
        for name in ("max_index", "max_width"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(VERSIONS[self.version], name))
        self.require("max_index", 2 <= self.max_index <= LONGEST, f"give 2 to {LONGEST}")
        self.require_least(1, "max_width")

    def build(self) -> Space:
        """The space that these settings describe."""
        own = VERSIONS[self.version]
        return Space(self.max_index, own.operations, self.max_width)
