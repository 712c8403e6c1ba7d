"""Images of any number, read from disk while a network trains: ILSVRC, or whatever is laid out so.

Hands on no names, since loader processes start here and must import little. It may import the
rooms of `blockqnn.data` that need neither scikit-learn nor a data set in memory.
"""
