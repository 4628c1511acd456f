"""Motivated training: a larger model takes over a smaller one when things go well (arXiv 2602.21064)."""

__version__ = "0.1.0"
