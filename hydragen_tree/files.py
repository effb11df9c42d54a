"""Writing files so that nothing is lost: what was there is whole until the new content is."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STREAMS = {Path("/dev/stdin"), Path("/dev/stdout"), Path("/dev/stderr")}
_DESCRIPTORS = {Path("/dev/fd"), Path("/proc/self/fd")}


def is_descriptor(path: Path) -> bool:
    """Whether a path names one of the process's open files (`/dev/stdout`), whatever that is."""
    place = path.absolute()
    return place in _STREAMS or place.parent in _DESCRIPTORS


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, whose file takes the place of `path` when the block ends well.

    Until then, and after an error, what was there is untouched. Links to the file stay links.
    Pipes and devices are written as they are, as is a file in a directory that takes no other.

    Args:
        path: the file to be written; it may exist.

    Yields:
        Where to write: a file beside it, with the same ending.

    Raises:
        OSError: the file cannot be put in place.
    """
    target = path if is_descriptor(path) else path.resolve()
    is_special = is_descriptor(path) or (target.exists() and not target.is_file())
    if is_special or (target.exists() and not os.access(target.parent, os.W_OK)):
        yield path
        return
    scratch = target.with_name(f".{target.stem}.part{target.suffix}")
    try:
        yield scratch
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, scratch)
        scratch.replace(target)
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()


def write_text(path: Path, text: str) -> None:
    """Writes a file whole, or leaves what was there.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as scratch:
        scratch.write_bytes(text.encode())
