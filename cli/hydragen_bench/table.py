"""Lines of the tables that benchmarks print as they go."""

from collections.abc import Iterable


def line(cells: Iterable[str], width: int = 10) -> str:
    """Cells set right, each in its column."""
    return "".join(f"{cell:>{width}s}" for cell in cells)


def compared(ours: float, theirs: float | None, digits: int = 0) -> tuple[str, str]:
    """Two cells: another's time, and how many times ours it is; dashes where there is none."""
    if theirs is None:
        return "-", "-"
    return f"{theirs:.{digits}f}", f"{theirs / ours:.1f}"
