"""What a search's candidates came to: the best, fronts, iterations, and what goes with accuracy.

It may import `blockqnn`; tables and numbers alone, pictures are drawn above.
"""
