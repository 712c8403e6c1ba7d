"""Settings of the network around the blocks, the section `network` of params.yaml."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Self, get_args

from blockqnn.cost import Cost, DeviceCost, network_cost, network_layers
from blockqnn.cost.layers import Run
from blockqnn.cost.match import matched_filters, preference
from blockqnn.settings.checks import Section
from blockqnn.space import AS_SET, Block, Shape
from blockqnn.space.block import one_of
from blockqnn.space.skeleton import CONNECTIONS, STEM_POOLS

Match = Literal["none", "macs", "parameters", "seconds", "latency"]
MEASURED = ("seconds", "latency")
"""Costs that depend on the device."""


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Section, section="network"):
    """The network that is stacked from a block for the search (paper figure 3)."""

    skeleton: str = "cifar"
    """What surrounds the blocks: cifar or imagenet (paper figure 3), or half, whose first stage has
    half the image's height and width (ours)."""
    filters: tuple[int, ...] = (32, 64, 128)
    """Filters of the convolutions in each stage."""
    repeats: int | tuple[int, ...] = 4
    """Blocks in a stage: one number for all stages, or one for each."""
    connections: str = "none"
    """How the blocks of a stage are connected: none; shortcut adds a block's input to its output;
    concat lets a block read the outputs of the two blocks before it (our reading)."""

    match: Match = "none"
    """What every block's network costs as much of as that of block plain with these filters, one
    block a stage, within 3 %: macs (multiply-accumulates), parameters, seconds (of training on the
    device at hand) or latency (of a forward pass there). Its own filters are then other multiples
    of 8, in about the same proportion. none gives every network these filters."""
    match_repeats: tuple[int, ...] = ()
    """Numbers of blocks a stage among which the match of a final training chooses the one whose
    filters are nearest to these, such as [1, 2, 3]; none leaves `repeats`."""

    def __post_init__(self) -> None:
        self.require("match", self.match in get_args(Match), f"choose {', '.join(get_args(Match))}")
        fits = all(each >= 1 for each in self.match_repeats)
        self.require("match_repeats", fits, "give numbers of 1 or more")
        if self.match == "none":
            self.require_default("nothing is matched; give network.match too", "match_repeats")
        self.require("skeleton", self.skeleton in STEM_POOLS, f"choose {one_of(STEM_POOLS)}")
        whole = len(self.filters) > 0 and min(self.filters) >= 1
        self.require("filters", whole, "give at least one number of filters >= 1")
        if isinstance(self.repeats, int):
            most = self.repeats
            self.require("repeats", most >= 1, "give 1 or more")
        else:
            fits = len(self.repeats) == len(self.filters) and min(self.repeats) >= 1
            self.require("repeats", fits, "give one number >= 1 for each stage")
            most = max(self.repeats)
        known = self.connections in CONNECTIONS
        self.require("connections", known, f"choose {one_of(CONNECTIONS)}")
        remedy = "it joins blocks of a stage; give network.repeats of 2 or more, or shortcut"
        self.require("connections", self.connections != "concat" or most > 1, remedy)

    def cost(
        self,
        block: Block,
        *,
        num_classes: int,
        in_channels: int,
        image_size: int,
        prices: DeviceCost | None = None,
    ) -> Cost:
        """Return what the network stacked from a block costs, on a device with these prices too;
        raises as `network_cost` does."""
        images = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
        found = network_cost(block, **(self._shape() | images))
        if prices is None:
            return found
        layers = list(self.layers(block, **images))
        return replace(
            found,
            seconds_an_image=prices.seconds_an_image(layers),
            milliseconds=prices.milliseconds(layers),
        )

    def layers(
        self, block: Block, *, num_classes: int, in_channels: int, image_size: int
    ) -> Iterator[Run]:
        """Return the network's layers with their shapes; raises as `network_layers` does."""
        images = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
        return network_layers(block, **(self._shape() | images))

    def shaped(self, shape: Shape) -> Self:
        """Return the settings with what a network has of its own; with own filters nothing is
        matched.
        """
        if shape == AS_SET:
            return self
        own: dict[str, Any] = {name: getattr(shape, name) for name in shape.to_dict()}
        if shape.repeats is not None and len(shape.repeats) == 1:
            own["repeats"] = shape.repeats[0]
        elif shape.repeats is not None:
            own.setdefault("filters", self.filters[: len(shape.repeats)])
        if shape.filters is not None:
            own["match"] = "none"
        return replace(self, **own)

    def matched(
        self,
        block: Block,
        like: Block,
        *,
        shape: Shape = AS_SET,
        num_classes: int,
        in_channels: int,
        image_size: int,
        prices: DeviceCost | None = None,
    ) -> Self:
        """Return settings of that shape that match nothing further, with the filters by which the
        block's network costs what the network of `like` does with these, one block a stage, or
        nearest to it.

        `prices` are those of the device, for a match in seconds or latency.
        """
        shaped = self.shaped(shape)
        if shaped.match == "none":
            return shaped
        images = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
        target = self.matched_cost(self.reference.cost(like, prices=prices, **images))

        def cost(network: Self) -> float:
            return self.matched_cost(network.cost(block, prices=prices, **images))

        def fitted(network: Self) -> Self:
            of_width = partial(replace, network)
            return of_width(
                filters=matched_filters(
                    lambda filters: cost(of_width(filters=filters)), network.filters, target
                )
            )

        def preferred(network: Self) -> tuple[bool, float]:
            return preference(network.filters, cost(network) / target, shaped.filters)

        offered = self.match_repeats if shape.repeats is None else ()
        base = replace(shaped, match="none", match_repeats=())
        found = [fitted(replace(base, repeats=each)) for each in offered or (base.repeats,)]
        return min(found, key=preferred)

    def times_reference(self, network: Self, block: Block, like: Block, **images: Any) -> float:
        """Return how many times what is matched the block's network costs of what the network of
        `like` does with these settings; the images and prices are as in `matched`.
        """
        target = self.matched_cost(self.reference.cost(like, **images))
        return self.matched_cost(network.cost(block, **images)) / target

    @property
    def reference(self) -> Self:
        """The network whose cost others are matched with: one block a stage, not connected."""
        return replace(self, repeats=1, connections="none")

    def matched_cost(self, cost: Cost) -> float:
        """Return how much of what is matched a network with that cost takes."""
        found = {
            "macs": cost.macs,
            "parameters": cost.parameters,
            "seconds": cost.seconds_an_image,
            "latency": cost.milliseconds,
        }[self.match]
        assert found is not None, "a device has prices before anything is matched by them"
        return found

    def described(self) -> dict[str, Any]:
        """Return plain values that name the network, without connections and matching if there are
        none: networks from before there were any keep their name."""
        values = self.to_dict()
        return {name: value for name, value in values.items() if value not in ("none", [], ())}

    def _shape(self) -> dict[str, Any]:
        """The fields that make a network, by name."""
        return {name: value for name, value in vars(self).items() if "match" not in name}
