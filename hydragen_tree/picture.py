"""Pictures in files, PNG or SVG: what all plots have in common."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydragen_tree.errors import InputError, OutputError
from hydragen_tree.files import replacing

FORMATS = (".png", ".svg")


def check_ending(path: Path) -> None:
    """Refuses a file that is to be no picture.

    Raises:
        InputError: another ending than `.png` or `.svg`.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError("expected a name ending in .png or .svg", setting="plot", value=path)


def check_matplotlib(path: Path) -> None:
    """Refuses to draw where nothing can.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError(
            "needs matplotlib: pip install 'hydragen-tree[plot]'", setting="plot", value=path
        ) from None


def save_picture(
    path: Path, size: tuple[float, float], font_size: int, draw: Callable[[Any], None]
) -> None:
    """Draws on new axes and writes them: the same content gives the same file, byte for byte.

    Args:
        path: ends in `.png` or `.svg`.
        size: width and height in inches; `draw` may change them.
        font_size: in points.
        draw: called with the axes.

    Raises:
        InputError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    check_matplotlib(path)
    import matplotlib
    from matplotlib.figure import Figure

    # A fixed salt and no date, or no two files would be the same.
    with matplotlib.rc_context({"svg.hashsalt": "hydragen", "font.size": font_size}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else {"Software": None}
        try:
            with replacing(path) as scratch:
                figure.savefig(
                    scratch, dpi=160, metadata=metadata, format=path.suffix.lower().lstrip(".")
                )
        except OSError as error:
            raise OutputError(error.strerror or str(error), setting="plot", value=path) from error
