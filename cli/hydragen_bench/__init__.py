"""Measurements: each module checks its results first, prints a short table and returns rows."""
