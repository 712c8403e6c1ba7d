"""Judges what a search brought out: drawings of blocks, learning curves, tables."""
