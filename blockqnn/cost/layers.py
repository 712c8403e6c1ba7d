"""The layers of a network with their shapes, from its block's code alone."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from blockqnn.space import Block, Layer, Op
from blockqnn.space.skeleton import STEM_POOLS, stage_repeats, stem_width

# Looking up a member of an Enum takes long.
_CONV, _SEPARABLE, _MAX_POOL, _AVG_POOL, _ADD, _CONCAT = map(
    int, (Op.CONV, Op.SEPARABLE, Op.MAX_POOL, Op.AVG_POOL, Op.ADD, Op.CONCAT)
)


class NetworkLayer(NamedTuple):
    """One layer of a network with the shape of its maps."""

    kind: str
    """stem (convolution and batch norm), pcc (with a ReLU before them), separable, max_pool,
    avg_pool (both 3x3, stride 1), add, concat, pool (2x2 maxima between stages) or head (ReLU,
    global average pooling and the linear layer)."""
    kernel: int
    """Side of the kernel in pixels; 0 where there is none."""
    width: int
    """Channels read, of a concat all together."""
    made: int
    """Channels made; of the head, classes."""
    size: int
    """Side in pixels of the maps made; of the head, of those read."""


Run = tuple[int, list[NetworkLayer]]
"""How often layers come in a row, and these layers."""


def network_layers(
    block: Block,
    *,
    filters: Sequence[int],
    repeats: int | Sequence[int],
    num_classes: int,
    in_channels: int = 3,
    image_size: int = 32,
    skeleton: str = "cifar",
    connections: str = "none",
) -> Iterator[Run]:
    """Yield the layers of the network that `build_network` makes, in runs of equal blocks.

    Raises `ValueError` as `network_cost` does. What computes nothing is left out.
    """
    each = stage_repeats(filters, repeats, num_classes, in_channels, skeleton, connections)
    pools = STEM_POOLS[skeleton] + len(each) - 1
    if image_size < 2**pools:
        raise ValueError(
            f"image_size is {image_size}: {pools} poolings need {2**pools} pixels or more"
        )
    computing = block.computing_layers()
    width, size = stem_width(filters, skeleton), image_size
    stem = [NetworkLayer("stem", 3, in_channels, width, size)]
    if skeleton == "half":
        size //= 2
        stem.append(NetworkLayer("pool", 2, width, width, size))
    elif skeleton == "imagenet":
        half, size = size // 2, size // 2 // 2
        stem += [
            NetworkLayer("pool", 2, width, width, half),
            NetworkLayer("pcc", 3, width, width, half),
            NetworkLayer("pool", 2, width, width, size),
        ]
    yield 1, stem
    for stage, (stage_filters, blocks) in enumerate(zip(filters, each, strict=True)):
        if stage:
            size //= 2
            yield 1, [NetworkLayer("pool", 2, width, width, size)]
        entered = before = count = 0
        layers: list[NetworkLayer] = []
        for _ in range(blocks):
            entering = width + before if connections == "concat" else width
            if entering != entered:  # equal widths, equal layers
                if count:
                    yield count, layers
                entered, count = entering, 0
                layers, made = _block_layers(*computing, entering, stage_filters, size)
                if entering != width:
                    layers.append(NetworkLayer("concat", 0, entering, entering, size))
                if connections == "shortcut":
                    if entering != made:
                        layers.append(NetworkLayer("pcc", 1, entering, made, size))
                    layers.append(NetworkLayer("add", 0, made, made, size))
            count += 1
            before, width = width, made
        yield count, layers
    yield 1, [NetworkLayer("head", 0, width, num_classes, size)]


def _block_layers(
    layers: Sequence[Layer], leaves: Sequence[int], width: int, filters: int, size: int
) -> tuple[list[NetworkLayer], int]:
    """The layers of a block that reads maps so wide, and the width of its output."""
    widths = {0: width}
    found: list[NetworkLayer] = []
    for index, op, kernel, first, second in layers:
        read = made = widths[first]
        if op == _CONV:
            made = filters
            found.append(NetworkLayer("pcc", kernel, read, made, size))
        elif op == _SEPARABLE:
            made = filters
            found.append(NetworkLayer("separable", kernel, read, made, size))
        elif op == _CONCAT:
            made += widths[second]
            found.append(NetworkLayer("concat", 0, made, made, size))
        elif op == _ADD:
            if read != (other := widths[second]):
                made = filters
                found += [
                    NetworkLayer("pcc", 1, source, filters, size)
                    for source in (read, other)
                    if source != filters
                ]
            found.append(NetworkLayer("add", 0, made, made, size))
        else:
            kind = "max_pool" if op == _MAX_POOL else "avg_pool"
            found.append(NetworkLayer(kind, kernel, read, read, size))
        widths[index] = made
    end = sum(widths[leaf] for leaf in leaves)
    if len(leaves) > 1:
        found.append(NetworkLayer("concat", 0, end, end, size))
    return found, end
