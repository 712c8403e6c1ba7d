"""A block as a picture: where its layers lie, and how they are drawn, as SVG or PNG.

It may import `blockqnn` alone.
"""

from evaluation.drawing.block import draw_block

__all__ = ["draw_block"]
