"""Lines of prompts from a pipe whose other end is still writing: each is used when it has come."""

import os
import queue
import threading
import time
from collections.abc import Hashable, Mapping
from typing import Any

from hydragen_tree.prompt.prompt_lines import PromptLineReader, PromptLines

_CHUNK = 1 << 16
_POLL_S = 0.1  # a signal must not wait for a line
_AT_ONCE_S = 0.2  # what ends so soon after its first line has been there from the start


class PromptStream:
    """Reads a pipe in a thread of its own.

    A bad line ends the stream: what came before it can still be used.

    Args:
        descriptor: of the pipe. It is read as bytes, beneath whatever buffers it has.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._reader = PromptLineReader()
        self._n_taken = 0
        self._has_begun = self._is_over = False
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def asked(self) -> Mapping[str, Mapping[Hashable, int]]:
        """What requests ask for so far, as `PromptLines` has it."""
        return self._reader.asked

    def take(self, wait: bool = True) -> list[tuple[str, Any]] | None:
        """The prompts that have come since the last call; None: there are no more.

        Args:
            wait: for one, or for the end.

        Raises:
            InputError: a line is bad, and all before it have been taken.
        """
        if len(self._reader.prompts) == self._n_taken:
            self._wait(0.0)
        while wait and not self._is_over and len(self._reader.prompts) == self._n_taken:
            self._wait(_POLL_S)
        if len(self._reader.prompts) == self._n_taken:
            if not self._is_over:
                return []
            self._reader.check()
            return None
        prompts = self._reader.prompts[self._n_taken :]
        self._n_taken += len(prompts)
        return prompts

    def begin(self) -> PromptLines | None:
        """Waits for the first prompt, and a moment longer.

        Returns:
            All prompts, if the stream has ended by then.

        Raises:
            InputError: a line that has come by then is bad (all such are named), or there is none.
        """
        while not (self._is_over or self._reader.prompts or self._reader.faults):
            self._wait(_POLL_S)
        deadline = time.monotonic() + _AT_ONCE_S
        while not self._is_over and (left := deadline - time.monotonic()) > 0:
            self._wait(left)
        self._has_begun = True
        self._reader.check()
        return self._reader.finish() if self._is_over else None

    def _wait(self, seconds: float) -> None:
        """Takes in the next line, or what has come by now if none comes in time."""
        try:
            line = self._lines.get(timeout=seconds)
            while True:
                self._take(line)
                line = self._lines.get_nowait()
        except queue.Empty:
            pass

    def _take(self, line: bytes | None) -> None:
        if line is None:
            self._is_over = True
        elif not self._is_over:
            self._reader.take_bytes(line)
            self._is_over = self._has_begun and bool(self._reader.faults)

    def _read(self) -> None:
        rest = b""
        while chunk := os.read(self._descriptor, _CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._lines.put(line)
        if rest:
            self._lines.put(rest)
        self._lines.put(None)
