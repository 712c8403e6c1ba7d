"""The search space: layer codes, blocks, which layers may follow, and the skeleton around the
blocks.

Pure Python and NumPy. It imports nothing else of the package, and everything may import it.
"""

from blockqnn.space.block import KERNELS, LONGEST, MERGES, WIRES, Block, Layer, Op, predecessors
from blockqnn.space.spaces import V1, V2, VERSIONS, Space

__all__ = [
    "Block",
    "KERNELS",
    "LONGEST",
    "Layer",
    "MERGES",
    "Op",
    "Space",
    "V1",
    "V2",
    "VERSIONS",
    "WIRES",
    "predecessors",
]
