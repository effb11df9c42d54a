"""The Python that runs the programs: where it lives, what it needs to be able to read."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hydragen_tree.errors import InputError

_QUESTION = (
    "import json, sys; print(json.dumps([sys.executable, sys.prefix, sys.exec_prefix,"
    " sys.base_prefix, sys.base_exec_prefix, sys.version, list(sys.version_info)]))"
)
_OLDEST = (3, 9)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python found working.

    Args:
        path: the executable.
        prefixes: directories it loads its library from.
        version: `sys.version` in full, as the verdict cache's key.
    """

    path: str
    prefixes: tuple[str, ...]
    version: str


@lru_cache
def find_interpreter(path: str | None = None) -> Interpreter:
    """Ask a Python about itself.

    Args:
        path: the executable; by default the one that runs us, outside of any virtual environment.

    Raises:
        InputError: it cannot be run, or is too old.
    """
    asked = path or getattr(sys, "_base_executable", None) or sys.executable
    try:
        answer = subprocess.run(
            [asked, "-s", "-c", _QUESTION],
            capture_output=True,
            check=True,
            timeout=60,
            env={"PATH": os.environ.get("PATH", os.defpath)},
        ).stdout
        executable, *prefixes, version, numbers = json.loads(answer)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise InputError(
            f"cannot be run as a Python: {error}", setting="python", value=asked
        ) from error
    if tuple(numbers[:2]) < _OLDEST:
        raise InputError(
            f"is Python {version.split()[0]}, 3.9 or later needed", setting="python", value=asked
        )
    home = str(Path.home())
    unique = tuple(dict.fromkeys(prefixes))
    if any(prefix in ("/", home) for prefix in unique):
        raise InputError(
            f"its library is in {unique[0]}, which programs must not read; name another "
            "interpreter",
            setting="python",
            value=asked,
        )
    return Interpreter(executable, unique, version)
