"""Test code that stays compiled from one run to the next.

The runner keeps it, and whatever the runner forks has it in its memory: so only the runner that
runs tests keeps anything, and no program under judgement is ever forked from that one.
"""

from __future__ import annotations

from collections import OrderedDict
from types import CodeType

from .process import compile_source, read_whole

_MOST_BYTES = 1 << 20


class CodeCache:
    """Compiled test code by its source, the last used ones up to a size."""

    def __init__(self) -> None:
        self._codes: OrderedDict[bytes, CodeType] = OrderedDict()
        self._bytes = 0

    def code(self, fd: int, name: str) -> CodeType | None:
        """The compiled content of a file; None where it does not compile.

        Args:
            fd: the file.
            name: what the code shall call it.
        """
        source = read_whole(fd)
        code = self._codes.pop(source, None)
        if code is None:
            try:
                code = compile_source(source, name)
            except Exception:  # the process that is to run it finds out again, and says so
                return None
            self._bytes += len(source)
        self._codes[source] = code
        while self._bytes > _MOST_BYTES and len(self._codes) > 1:
            self._bytes -= len(self._codes.popitem(last=False)[0])
        return code
