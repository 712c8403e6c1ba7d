"""Blocks with a name: the published results and the paper's two printed examples.

A and B won the CIFAR-100 search, S a second search held to ten million parameters (CVPR 2018,
figure 8; the figure gives drawings, so the order of the layers is ours). The Inception-like and
the residual block are the codes printed in its figure 2. The plain one is ours: two convolutions,
what a searched block has to beat.
"""

from blockqnn.errors import SettingsError
from blockqnn.space import LONGEST, Block, Shape

BLOCKS: dict[str, Block] = {
    name: Block.parse(code)
    for name, code in {
        "A": (
            "(1,4,0,0,0)(2,1,5,1,0)(3,5,0,2,1)(4,1,3,3,0)(5,1,1,1,0)(6,1,3,1,0)(7,2,1,6,0)"
            "(8,1,1,7,0)(9,1,5,1,0)(10,2,1,9,0)(11,3,3,10,0)(12,1,3,1,0)(13,2,3,12,0)(14,7,0,0,0)"
        ),
        "B": (
            "(1,4,0,0,0)(2,1,1,1,0)(3,1,3,1,0)(4,1,5,3,0)(5,5,0,3,4)(6,6,0,3,4)(7,1,3,6,0)"
            "(8,1,5,1,0)(9,3,3,8,0)(10,1,3,1,0)(11,7,0,0,0)"
        ),
        "S": (
            "(1,4,0,0,0)(2,1,3,1,0)(3,1,1,2,0)(4,2,3,3,0)(5,1,3,2,0)(6,1,5,5,0)(7,1,3,1,0)"
            "(8,5,0,6,7)(9,2,3,7,0)(10,1,1,1,0)(11,5,0,10,7)(12,1,3,11,0)(13,1,3,10,0)"
            "(14,1,1,1,0)(15,7,0,0,0)"
        ),
        "inception": (
            "(1,4,0,0,0)(2,1,1,1,0)(3,1,3,2,0)(4,1,1,1,0)(5,1,5,4,0)(6,6,0,3,5)(7,2,3,1,0)"
            "(8,1,1,7,0)(9,6,0,6,8)(10,7,0,0,0)"
        ),
        "residual": "(1,4,0,0,0)(2,1,3,1,0)(3,1,3,2,0)(4,5,0,1,3)(5,7,0,0,0)",
        "plain": "(1,1,3,0,0)(2,1,3,1,0)(3,7,0,0,0)",
    }.items()
}
"""Each block under the name that the command line and the documents use."""


def named_block(text: str, what: str = "blocks has", also: str = "") -> tuple[str, Block]:
    """Return the label and the block of a name in `BLOCKS` or of a code.

    Raises `SettingsError` for neither; its sentence begins with `what` and offers `also` too.
    """
    if text in BLOCKS:
        return text, BLOCKS[text]
    try:
        block = Block.parse(text, LONGEST)
    except ValueError as error:
        raise SettingsError(
            f"{what} {text!r}: {error}; give one of {', '.join(BLOCKS)}{also}, or a code such as "
            "(1,1,3,0,0)(2,7,0,0,0)"
        ) from None
    return f"block-{block.key[:6]}", block


def named_design(text: str, what: str = "blocks has", also: str = "") -> tuple[str, Block, Shape]:
    """Return the label of a block as `named_block` does, the block, and what is given of the shape
    of its network behind colons, as in `residual:half:1-2-1`.

    Raises `SettingsError` for what is none of these.
    """
    name, _, parts = text.partition(":")
    label, block = named_block(name, what, also)
    try:
        shape = Shape.parse(parts)
    except ValueError as error:
        raise SettingsError(f"{what} {text!r}: {error}") from None
    return f"{label}:{shape}".rstrip(":"), block, shape
