"""Parameters, multiply-accumulates and memory of a network, from its block's code alone.

Widths of concats of concats can double with every layer. So whether a block fits a budget is
decided here, in exact integers of any size, before a tensor is made. It needs no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from blockqnn.cost.layers import network_layers
from blockqnn.space import Block


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
    seconds_an_image: float | None = None
    """Seconds that a training takes for each image on a device with prices, predicted from these
    (`DeviceCost`); None without."""
    milliseconds: float | None = None
    """Milliseconds of a forward pass there, predicted likewise; None without prices."""

    def to_dict(self) -> dict[str, float]:
        """Plain values for JSON, without those that are None."""
        return {name: value for name, value in vars(self).items() if value is not None}


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
    parameters = macs = values = 0
    for count, layers in network_layers(
        block,
        filters=filters,
        repeats=repeats,
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        skeleton=skeleton,
        connections=connections,
    ):
        for kind, kernel, width, made, size in layers:
            pixels = count * size * size
            if kind == "pcc" or kind == "stem":
                weights, kept = kernel * kernel * width * made, 2 * made
                kept += width if kind == "pcc" else 0  # its ReLU
            elif kind == "separable":
                weights, kept = width * (kernel * kernel + made), 2 * (width + made)
            elif kind == "head":
                parameters += width * made + made
                macs += width * made
                values += width * pixels + width + made
                continue
            else:
                values += made * pixels
                continue
            parameters += count * (weights + 2 * made)
            macs += weights * pixels
            values += kept * pixels
    return Cost(parameters, macs, 4 * values)
