"""The search space: layer codes, blocks, which layer may come next, and the skeleton around blocks.

It is pure Python and NumPy, imports nothing else of the package, and everything may import it.
"""

from blockqnn.space.block import KERNELS, LONGEST, MERGES, WIRES, Block, Layer, Op, predecessors
from blockqnn.space.shape import AS_SET, Shape, ShapedBlock, ShapedSpace, design_of, parts_of
from blockqnn.space.spaces import V1, V2, VERSIONS, Space

__all__ = ["AS_SET", "Block", "KERNELS", "LONGEST", "Layer", "MERGES", "Op", "Shape", "ShapedBlock"]
__all__ += ["ShapedSpace", "Space", "V1", "V2", "VERSIONS", "WIRES", "design_of", "parts_of"]
__all__ += ["predecessors"]
