"""Settings of the search space, the section `space` of params.yaml."""

from dataclasses import dataclass, replace
from typing import Literal, Self

from blockqnn.settings.checks import Section
from blockqnn.space import LONGEST, VERSIONS, Shape, ShapedSpace, Space
from blockqnn.space.shape import MOST, MOST_STAGES, shapes_of
from blockqnn.space.skeleton import CONNECTIONS, STEM_POOLS


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

    skeletons: tuple[str, ...] = ()
    """Skeletons among which the agent chooses, such as [cifar, half]; none leaves every network
    that of network.skeleton."""
    stages: tuple[int, ...] = ()
    """Numbers of stages among which the agent chooses, such as [2, 3], the first ones of
    network.filters; none leaves them all. It wants `repeats` too."""
    repeats: tuple[int, ...] = ()
    """Numbers of blocks among which the agent chooses for each stage, such as [1, 2]; none leaves
    network.repeats."""
    connections: tuple[str, ...] = ()
    """Connections of blocks among which the agent chooses, such as [none, shortcut]; none leaves
    network.connections."""

    def __post_init__(self) -> None:
        self.require("version", self.version in VERSIONS, "choose v1 or v2")
        for name in ("max_index", "max_width"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(VERSIONS[self.version], name))
        self.require("max_index", 2 <= self.max_index <= LONGEST, f"give 2 to {LONGEST}")
        self.require_least(1, "max_width")
        for name, known in (("skeletons", STEM_POOLS), ("connections", CONNECTIONS)):
            offered = getattr(self, name)
            fits = set(offered) <= set(known) and len(set(offered)) == len(offered)
            self.require(name, fits, f"choose among {', '.join(known)}, each once")
        for name, least in (("stages", 2), ("repeats", 1)):
            offered = getattr(self, name)
            fits = all(each >= least for each in offered) and len(set(offered)) == len(offered)
            self.require(name, fits, f"give numbers of {least} or more, each once")
        if not self.repeats:
            self.require_default("it wants space.repeats to choose from; give both", "stages")

    def build(self) -> Space:
        """The space that these settings describe."""
        own = VERSIONS[self.version]
        return Space(self.max_index, own.operations, self.max_width)

    @property
    def blocks(self) -> Self:
        """The settings of the same blocks, in networks whose shape is set."""
        return replace(self, stages=(), repeats=(), skeletons=(), connections=())

    def shapes(self, filters: int) -> tuple[Shape, ...]:
        """The shapes among which the agent chooses, for networks of so many filters of stages; none
        where every network has that of the settings. Raises `SettingsError` for too many.
        """
        if not (self.skeletons or self.repeats or self.connections):
            return ()
        stages = self.stages or (filters,)
        self.require("stages", max(stages) <= filters, f"network.filters has {filters}")
        remedy = f"networks of more than {MOST_STAGES} stages have one shape; give fewer filters"
        self.require("repeats", not self.repeats or max(stages) <= MOST_STAGES, remedy)
        count = max(1, len(self.skeletons)) * max(1, len(self.connections))
        count *= sum(max(1, len(self.repeats)) ** each for each in stages)
        remedy = f"they make {count:,} shapes with {stages[-1]} stages; {MOST:,} are the most"
        self.require("repeats", count <= MOST, remedy)
        return shapes_of(stages, self.skeletons, self.repeats, self.connections)

    def designs(self, filters: int) -> Space | ShapedSpace:
        """The space of blocks, or of blocks in a shape, for networks of so many filters."""
        shapes = self.shapes(filters)
        return ShapedSpace(self.build(), shapes) if shapes else self.build()
