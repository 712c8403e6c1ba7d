"""A block as a picture: where its layers lie, and how they are drawn, as SVG or PNG.

It may import `blockqnn` alone.
"""

from evaluation.drawing.block import block_svg, draw_block

__all__ = ["block_svg", "draw_block"]
