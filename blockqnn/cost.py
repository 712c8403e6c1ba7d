"""The cost of a network from its code alone: no tensor is made, no limit on the widths.

Widths of concats of concats can double with every layer, so whether a block fits a budget is
decided here, in exact integers, before anything is built.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from blockqnn.space import WIRES, Block, Op
from blockqnn.space.skeleton import STEM_POOLS, stage_repeats

_BYTES = 4  # of a float32
_CONV, _SEPARABLE = int(Op.CONV), int(Op.SEPARABLE)  # an Enum's names are slow
_ADD, _CONCAT = int(Op.ADD), int(Op.CONCAT)


@dataclass(frozen=True)
class Cost:
    """Size and work of one network."""

    parameters: int
    """Trainable numbers, exactly those of the built network."""
    macs: int
    """Multiply-accumulates of one forward pass of one image; convolutions and the linear layer."""
    activation_bytes: int
    """Bytes, in float32, of the outputs of all ReLUs, convolutions, batch norms, poolings, adds,
    concats and the linear layer in one forward pass of one image. A training step keeps 55 to
    95 % of it for its backward pass. Identities and kernel-1 poolings are aliases: no bytes."""


class _Tally:
    """Running sums, and the width and image size reached so far."""

    def __init__(self, width: int, size: int) -> None:
        self.width = width
        self.size = size
        self.parameters = self.macs = self.values = 0

    def add(self, weights: int, norms: int, values: int) -> None:
        """Count convolution weights, batch norm channels and values made at each pixel."""
        pixels = self.size * self.size
        self.parameters += weights + 2 * norms
        self.macs += weights * pixels
        self.values += values * pixels

    def pool(self) -> None:
        self.size //= 2
        self.add(0, 0, self.width)


def network_cost(
    block: Block,
    *,
    filters: Sequence[int],
    repeats: int | Sequence[int],
    num_classes: int,
    in_channels: int = 3,
    image_size: int = 32,
    skeleton: str = "cifar",
    connections: str = "none",
) -> Cost:
    """Return the cost of the network that `build_network` makes, for square images.

    `image_size` is in pixels. Raises `ValueError` for the arguments that `build_network` refuses
    and for an image that the poolings would shrink to nothing.
    """
    each = stage_repeats(
        filters,
        repeats,
        num_classes=num_classes,
        in_channels=in_channels,
        skeleton=skeleton,
        connections=connections,
    )
    pools = STEM_POOLS[skeleton] + len(each) - 1
    if image_size < 2**pools:
        raise ValueError(
            f"image_size is {image_size}: {pools} poolings need {2**pools} pixels or more"
        )
    tally = _Tally(filters[0], image_size)
    tally.add(9 * in_channels * tally.width, tally.width, 2 * tally.width)
    if skeleton == "imagenet":
        tally.pool()
        tally.add(*_pcc(tally.width, tally.width, 3))
        tally.pool()
    for stage, (stage_filters, blocks) in enumerate(zip(filters, each, strict=True)):
        if stage:
            tally.pool()
        entered = before = 0
        for number in range(blocks):
            entering = tally.width
            if connections == "concat" and number:
                entering += before
                tally.add(0, 0, entering)
            if entering != entered:  # equal widths, equal costs
                entered = entering
                leaving, *counts = _block_counts(block, entered, stage_filters)
            tally.add(*counts)
            if connections == "shortcut":
                if entered != leaving:
                    tally.add(*_pcc(entered, leaving, 1))
                tally.add(0, 0, leaving)
            before, tally.width = tally.width, leaving
    tally.add(0, 0, tally.width)  # ReLU
    linear = tally.width * num_classes
    return Cost(
        parameters=tally.parameters + linear + num_classes,
        macs=tally.macs + linear,
        activation_bytes=_BYTES * (tally.values + tally.width + num_classes),
    )


def _pcc(width: int, filters: int, kernel: int) -> tuple[int, int, int]:
    """Weights, normalised channels and values a pixel of one ReLU, convolution, batch norm."""
    return kernel * kernel * width * filters, filters, width + 2 * filters


def _block_counts(block: Block, width: int, filters: int) -> tuple[int, int, int, int]:
    """Width of a block's output, then its weights, normalised channels and values a pixel."""
    widths = [width]
    weights = norms = values = 0
    for _, op, kernel, first, second in block.layers[:-1]:
        made = widths[first]
        if op == _CONV:
            weights += kernel * kernel * made * filters
            norms += filters
            values += made + 2 * filters
            made = filters
        elif op == _SEPARABLE:
            weights += kernel * kernel * made + made * filters
            norms += filters
            values += 2 * made + 2 * filters
            made = filters
        elif op == _CONCAT:
            made += widths[second]
            values += made
        elif op == _ADD:
            if made != (other := widths[second]):
                for source in (made, other):
                    if source != filters:
                        weights += source * filters
                        norms += filters
                        values += source + 2 * filters
                made = filters
            values += made
        elif (op, kernel) not in WIRES:  # a pooling
            values += made
        widths.append(made)
    leaves = block.leaves or (0,)
    leaving = sum(widths[leaf] for leaf in leaves)
    return leaving, weights, norms, values + (leaving if len(leaves) > 1 else 0)
