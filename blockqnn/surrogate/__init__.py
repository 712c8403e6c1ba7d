"""The surrogate: what accuracy a network will reach, predicted before or while it is trained.

It imports the search space and its costs, and needs no torch.
"""

from blockqnn.surrogate.features import block_features
from blockqnn.surrogate.gaussian_process import Surrogate
from blockqnn.surrogate.kernel import Array
from blockqnn.surrogate.stopping_rule import CertainlyBad, StoppingRule

__all__ = ["Array", "CertainlyBad", "StoppingRule", "Surrogate", "block_features"]
