"""Measures that back every claim about speed; `python -m benchmarks` runs them all."""
