"""What networks cost, computed from the codes of their blocks without torch.

It may import the search space. Settings, surrogate, training, search and evaluation use it.
"""

from blockqnn.cost.device import DeviceCost
from blockqnn.cost.layers import NetworkLayer, network_layers
from blockqnn.cost.network import Cost, network_cost

__all__ = ["Cost", "DeviceCost", "NetworkLayer", "network_cost", "network_layers"]
