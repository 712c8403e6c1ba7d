"""Curves and fronts as pictures, in one style.

They may import results and iterations, and know nothing of the report they are shown in.
"""
