"""The cost of a network, from its block's code alone.

Widths of concats of concats can double with every layer. So whether a block fits a budget is
decided here, in exact integers of any size, before a tensor is made. It needs no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from blockqnn.space import Block, Layer, Op
from blockqnn.space.skeleton import STEM_POOLS, stage_repeats

# Looking up a member of an Enum takes long.
_CONV, _SEPARABLE, _ADD, _CONCAT = map(int, (Op.CONV, Op.SEPARABLE, Op.ADD, Op.CONCAT))


@dataclass(frozen=True)
class Cost:
    """Size and work of one network."""

    parameters: int
    """Number of trainable numbers, exactly those of the built network."""
    macs: int
    """Multiply-accumulates of the convolutions and the linear layer, for one image forward."""
    activation_bytes: int
    """Bytes, in float32, of the outputs of all ReLUs, convolutions, batch norms, poolings, adds,
    concats and the linear layer in one forward pass of one image. A training step keeps 55 to
    95 % of them for its backward pass. Identities and poolings of kernel 1 take no bytes."""


class _Tally:
    """Sums over the layers so far, and the channels and the side of the maps that they make."""

    def __init__(self, width: int, size: int) -> None:
        self.width = width
        self.size = size
        self.weights = self.norms = self.values = self.macs = 0

    def add(self, weights: int, norms: int, values: int) -> None:
        """Count convolution weights, batch norm channels and values made at each pixel."""
        pixels = self.size * self.size
        self.weights += weights
        self.norms += norms
        self.macs += weights * pixels
        self.values += values * pixels

    def add_pcc(self, width: int, filters: int, kernel: int) -> None:
        self.add(kernel * kernel * width * filters, filters, width + 2 * filters)

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

    `image_size` is their side in pixels. Raises `ValueError` for the arguments that `build_network`
    refuses, and for an image that the poolings would shrink to nothing.
    """
    each = stage_repeats(filters, repeats, num_classes, in_channels, skeleton, connections)
    pools = STEM_POOLS[skeleton] + len(each) - 1
    if image_size < 2**pools:
        raise ValueError(
            f"image_size is {image_size}: {pools} poolings need {2**pools} pixels or more"
        )
    computing = block.computing_layers()
    tally = _Tally(filters[0], image_size)
    tally.add(9 * in_channels * tally.width, tally.width, 2 * tally.width)
    if skeleton == "imagenet":
        tally.pool()
        tally.add_pcc(tally.width, tally.width, 3)
        tally.pool()
    for stage, (stage_filters, blocks) in enumerate(zip(filters, each, strict=True)):
        if stage:
            tally.pool()
        entered = before = 0
        for _ in range(blocks):
            entering = tally.width
            if connections == "concat" and before:
                entering += before
                tally.add(0, 0, entering)
            if entering != entered:  # equal widths, equal costs
                entered = entering
                one = _block_tally(*computing, entered, stage_filters)
            tally.add(one.weights, one.norms, one.values)
            if connections == "shortcut":
                if entered != one.width:
                    tally.add_pcc(entered, one.width, 1)
                tally.add(0, 0, one.width)
            before, tally.width = tally.width, one.width
    tally.add(0, 0, tally.width)  # ReLU
    linear = tally.width * num_classes
    return Cost(
        parameters=tally.weights + 2 * tally.norms + linear + num_classes,
        macs=tally.macs + linear,
        activation_bytes=4 * (tally.values + tally.width + num_classes),
    )


def _block_tally(
    layers: Sequence[Layer], leaves: Sequence[int], width: int, filters: int
) -> _Tally:
    """The sums of one block that reads maps so wide, of one pixel."""
    tally = _Tally(width, 1)
    widths = {0: width}
    for index, op, kernel, first, second in layers:
        made = widths[first]
        if op == _CONV:
            tally.add_pcc(made, filters, kernel)
            made = filters
        elif op == _SEPARABLE:
            tally.add(kernel * kernel * made + made * filters, filters, 2 * (made + filters))
            made = filters
        else:
            if op == _CONCAT:
                made += widths[second]
            elif op == _ADD and made != (other := widths[second]):
                for source in (made, other):
                    if source != filters:
                        tally.add_pcc(source, filters, 1)
                made = filters
            tally.add(0, 0, made)
        widths[index] = made
    tally.width = sum(widths[leaf] for leaf in leaves)
    if len(leaves) > 1:
        tally.add(0, 0, tally.width)
    return tally
