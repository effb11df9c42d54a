"""Attention and choice kernels, each beside a plain-torch reference that defines it."""
