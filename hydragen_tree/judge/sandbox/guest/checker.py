"""A checker that is a Python function: `check(input, answer, output) -> bool | (bool, message)`."""

from __future__ import annotations

import os
import sys
from types import CodeType
from typing import Any, NoReturn

from .process import FIRST_FILE_FD

ACCEPTED, WRONG = 42, 43


def main(sources: list[CodeType]) -> NoReturn:
    """Ask the checker about one output.

    Args:
        sources: the checker; the three texts are the files given with it.
    """
    module = sys.modules["__main__"].__dict__
    exec(sources[0], module)
    texts = [_read(FIRST_FILE_FD + index) for index in range(3)]
    verdict: Any = module["check"](*texts)
    accepted, message = verdict if isinstance(verdict, tuple) else (verdict, "")
    if not isinstance(accepted, bool):
        raise TypeError(f"check() returned {verdict!r:.200}: expected bool or (bool, str)")
    sys.stdout.flush()
    os.write(2, str(message)[:2000].encode(errors="replace"))
    os._exit(ACCEPTED if accepted else WRONG)


def _read(fd: int) -> str:
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        return file.read().decode("utf-8", "replace")
