"""Branches: the rows of the batch, how they are admitted, stepped and drawn from."""
