"""What surrounds the blocks: stem, poolings between the stages, head (CVPR 2018, figure 3).

cifar:    3x3 convolution | blocks | pool | blocks | pool | blocks | head
half:     3x3 convolution to half the filters of the first stage, pool | blocks | pool | ... | head
imagenet: 3x3 convolution, pool, 3x3 PCC, pool | blocks | pool | ... | blocks | head

A stage is a run of `repeats` equal blocks with the same filters. All poolings are 2x2 maxima
that halve the image. The head is ReLU, global average pooling and one linear layer. Skeleton half
is ours: a small network spends most of its time on its largest maps, which are few here.

Blocks may be connected beyond that. It is our reading of what the 2018 paper names as an option,
shortcuts between blocks, and of what the journal version, which we could not read, is said to do:

none:     a block reads the output of the one before it
shortcut: the input of each block is added to its output; where their widths differ, the input
          goes through a 1x1 PCC first
concat:   each block but the first of a stage reads the outputs of the two before it, concatenated;
          the stage's input stands for the output before the first
"""

from collections.abc import Sequence

from blockqnn.space.block import one_of

STEM_POOLS = {"cifar": 0, "half": 1, "imagenet": 2}
"""Number of poolings before the first block, by skeleton."""

CONNECTIONS = ("none", "shortcut", "concat")
"""How the blocks of a stage may be connected."""


def stem_width(filters: Sequence[int], skeleton: str) -> int:
    """Channels that the stem makes."""
    return max(1, filters[0] // 2) if skeleton == "half" else filters[0]


def stage_repeats(
    filters: Sequence[int],
    repeats: int | Sequence[int],
    num_classes: int,
    in_channels: int,
    skeleton: str,
    connections: str,
) -> tuple[int, ...]:
    """Check what describes a network and return the number of blocks of each stage.

    Raises `ValueError` that names the field, its value and what to give instead.
    """
    if skeleton not in STEM_POOLS:
        raise ValueError(f"skeleton is {skeleton!r}: give {one_of(STEM_POOLS)}")
    for name, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value < 1:
            raise ValueError(f"{name} is {value}: give 1 or more")
    if not filters or min(filters) < 1:
        raise ValueError(f"filters is {list(filters)}: give one positive width a stage")
    each = (repeats,) * len(filters) if isinstance(repeats, int) else tuple(repeats)
    if len(each) != len(filters):
        raise ValueError(
            f"repeats is {list(each)}: give one number, or one for each of {len(filters)} stages"
        )
    if min(each) < 1:
        raise ValueError(f"repeats is {repeats}: give 1 block a stage or more")
    if connections not in CONNECTIONS:
        raise ValueError(f"connections is {connections!r}: give {one_of(CONNECTIONS)}")
    if connections == "concat" and max(each) == 1:
        raise ValueError(
            f"connections is 'concat', of blocks within a stage, but repeats is {repeats}: give 2 "
            "or more, or another connection"
        )
    return each
