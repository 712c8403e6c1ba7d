"""The search space: layer codes, blocks, which layer may come next, and the skeleton around blocks.

It is pure Python and NumPy, imports nothing else of the package, and everything may import it.
"""

from blockqnn.space.block import (
    CONVOLUTIONS,
    KERNELS,
    LONGEST,
    MERGES,
    WIRES,
    Block,
    Layer,
    Layers,
    Op,
    predecessors,
)
from blockqnn.space.spaces import V1, V2, VERSIONS, Space

__all__ = ["Block", "CONVOLUTIONS", "KERNELS", "LONGEST", "Layer", "Layers", "MERGES", "Op"]
__all__ += ["Space", "V1", "V2", "VERSIONS", "WIRES", "predecessors"]
