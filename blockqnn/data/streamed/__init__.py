"""Data sets of any size, such as ILSVRC, whose images are read from disk while a network trains.

Hands on no names, since loader processes start here and must import little. It may import the
other rooms of `blockqnn.data`.
"""
