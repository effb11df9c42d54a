"""Has weights read from the disk while the libraries that load them are still being imported."""

import os
from contextlib import suppress
from pathlib import Path
from threading import Thread

_WEIGHTS = (".safetensors", ".gguf")
_PART = 64 << 20  # bytes asked for at a time
_SHARE = 0.5  # of the available memory: pages that push each other out are read twice


def read_ahead(model: str) -> Thread | None:
    """Asks the operating system for a model's files, which stay in its cache; does not wait.

    What is wrong with them is said when they are loaded.

    Args:
        model: as the user gave it.

    Returns:
        What asks for them; None if there is nothing to ask for: no directory, no such call in this
        system, or files larger than half of the memory that is available.
    """
    path = Path(model).expanduser()
    if not hasattr(os, "posix_fadvise"):
        return None
    with suppress(OSError):
        files = [path] if path.is_file() else sorted(path.iterdir())
        weights = [file for file in files if file.suffix in _WEIGHTS]
        if weights and sum(file.stat().st_size for file in weights) <= _SHARE * _available():
            reader = Thread(target=_ask, args=(weights,), daemon=True)
            reader.start()
            return reader
    return None


def _available() -> int:
    """Bytes of memory that Linux could give without swapping; 0 where it does not say."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _ask(files: list[Path]) -> None:
    with suppress(OSError):
        for file in files:
            with file.open("rb") as stream:
                for start in range(0, file.stat().st_size, _PART):
                    os.posix_fadvise(stream.fileno(), start, _PART, os.POSIX_FADV_WILLNEED)
