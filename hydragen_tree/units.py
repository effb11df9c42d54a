"""Quantities as people read them, in a terminal and in a report."""

import math


def size(n_bytes: float) -> str:
    """`812 B`, `1.5 MiB`."""
    if n_bytes < 1024:
        return f"{n_bytes:,.0f} B"
    power = min(int(math.log(n_bytes, 1024)), 4)
    return f"{n_bytes / 1024**power:,.1f} {'KMGT'[power - 1]}iB"
