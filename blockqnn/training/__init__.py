"""The one training loop, its state on disk, its devices and its arithmetic.

It may import data, networks and settings. `final` is a final training as a process. Hands on no
names, so that the devices can be asked for without the loop.
"""
