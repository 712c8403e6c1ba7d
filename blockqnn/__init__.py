"""Q-learning search over convolutional blocks: what a block is, how it is trained and proposed."""

__version__ = "0.1.0"
