"""The search space: layer codes, blocks, which layer may come next, and the skeleton around blocks.

It is pure Python and NumPy, imports nothing else of the package, and everything may import it.
"""

from blockqnn.space.block import KERNELS, LONGEST, MERGES, WIRES, Block, Layer, Op, predecessors
from blockqnn.space.spaces import V1, V2, VERSIONS, Space

__all__ = ["Block", "KERNELS", "LONGEST", "Layer", "MERGES", "Op", "Space", "V1", "V2", "VERSIONS"]
__all__ += ["WIRES", "predecessors"]
