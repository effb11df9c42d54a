"""Attention over the tree: plans, and one file for each backend."""
