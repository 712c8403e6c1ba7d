"""What networks cost, computed from the codes of their blocks without torch.

It may import the search space. Settings, surrogate, search and evaluation use it.
"""

from blockqnn.cost.layers import NetworkLayer, network_layers
from blockqnn.cost.network import Cost, network_cost

__all__ = ["Cost", "NetworkLayer", "network_cost", "network_layers"]
