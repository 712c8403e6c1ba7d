"""What a search's candidates came to: the best, the fronts, the iterations, what goes with accuracy.

It may import `blockqnn`; tables and numbers alone, pictures are drawn above.
"""
