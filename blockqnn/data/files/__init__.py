"""Image files on disk: found in folders, and decoded. Every reader does it in this way.

Hands on no names, since loader processes start here and must import little. It may import the
settings, storage and errors.
"""
