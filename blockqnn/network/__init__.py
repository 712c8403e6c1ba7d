"""A block becomes a network: its modules, the skeleton around it, and files of weights for others.

It may import the search space, its costs and storage. Importing it imports torch.
"""

from blockqnn.network.network import BlockNetwork, build_network, network_of

__all__ = ["BlockNetwork", "build_network", "network_of"]
