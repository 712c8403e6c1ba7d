"""`blockqnn compare`: agents on one benchmark with one budget, or finished searches, side by side.

It may import everything of the package; nothing of the package imports it.
"""
