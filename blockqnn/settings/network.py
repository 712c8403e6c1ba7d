"""Settings of the network around the blocks, the section `network` of params.yaml."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from blockqnn.cost import Cost, network_cost
from blockqnn.settings.checks import Section, require
from blockqnn.space import Block
from blockqnn.space.skeleton import CONNECTIONS


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Section):
    """The network that is stacked from a block for the search (paper figure 3)."""

    skeleton: str = "cifar"
    """What surrounds the blocks: cifar or imagenet (paper figure 3)."""
    filters: tuple[int, ...] = (32, 64, 128)
    """Filters of the convolutions in each stage."""
    repeats: int | tuple[int, ...] = 4
    """Blocks in a stage: one number for all stages, or one for each."""
    connections: str = "none"
    """How the blocks of a stage are connected: none; shortcut adds a block's input to its output;
    concat lets a block read the outputs of the two blocks before it (our reading)."""

    def __post_init__(self) -> None:
        known = self.skeleton in ("cifar", "imagenet")
        require(known, "network.skeleton", self.skeleton, "choose cifar or imagenet")
        whole = len(self.filters) > 0 and all(f >= 1 for f in self.filters)
        require(whole, "network.filters", self.filters, "give at least one number of filters >= 1")
        repeats = self.repeats
        if isinstance(repeats, int):
            require(repeats >= 1, "network.repeats", repeats, "give 1 or more")
        else:
            fits = len(repeats) == len(self.filters) and all(r >= 1 for r in repeats)
            require(fits, "network.repeats", repeats, "give one number >= 1 for each stage")
        connections = self.connections
        choice = f"choose {', '.join(CONNECTIONS[:-1])} or {CONNECTIONS[-1]}"
        require(connections in CONNECTIONS, "network.connections", connections, choice)
        several = max((repeats,) if isinstance(repeats, int) else repeats) > 1
        remedy = "it joins blocks of a stage; give network.repeats of 2 or more, or shortcut"
        require(connections != "concat" or several, "network.connections", connections, remedy)

    def cost(self, block: Block, *, num_classes: int, in_channels: int, image_size: int) -> Cost:
        """What the network stacked from a block costs; raises as `network_cost` does."""
        return network_cost(
            block,
            filters=self.filters,
            repeats=self.repeats,
            num_classes=num_classes,
            in_channels=in_channels,
            image_size=image_size,
            skeleton=self.skeleton,
            connections=self.connections,
        )

    def described(self) -> dict[str, Any]:
        """Plain values that say which network it is. Connections are left out where there are none:
        what was made before there were any is still named the same."""
        values = dataclasses.asdict(self)
        if self.connections == "none":
            del values["connections"]
        return values
