"""Judges what came out of searches and trainings: metrics, tables, pictures, the report,
comparisons.

It may import `blockqnn`, and only flows, benchmarks and tests import it.
"""
