"""Pipes between two programs that pass through the judge, so that ends are known in their order.

    writer  --pipe-->  relay  --pipe-->  reader

A program that closes its output gives its partner an end of file, and one that closes its input
breaks the partner's pipe. So does a death; but then the partner must not act on it before the death
is on record, or what follows from it would look like the earlier. A closed pipe alone does not tell
which of the two it is: it is passed on once the end of its owner is known, or soon after.

What is written to a partner that has ended goes nowhere, and breaks nothing: a program may print a
line more than its interactor waited for. An interactor's pipe is never broken at all, since many
do not expect it: it hears of the program's end by an end of file, and decides then.
"""

import contextlib
import math
import os
import selectors
import time
from typing import Protocol

_CHUNK = 1 << 16
_REPORT_S = 0.5  # within which the end of a program is on record, once its pipes have closed


class Ending(Protocol):
    """A program that runs."""

    @property
    def ended(self) -> bool:
        """Whether its end is on record, or will never be."""


class Relay:
    """Passes on what one program writes to another that reads it.

    Args:
        source: the descriptor that the writer's output is read from; closed here.
        target: the descriptor that the reader's input is written to; closed here.
        writer: who writes.
        reader: who reads.
        breaks: a reader that closes its input, and lives, breaks the writer's pipe.

    Attributes:
        hung_up_at: when the reader was given an end of file though the writer lived, on the
            machine's monotonic clock.
        due: when a closed pipe is passed on at the latest, on the machine's monotonic clock.
        moved_at: when something was passed on last, on the same clock.
    """

    def __init__(
        self, source: int, target: int, writer: Ending, reader: Ending, *, breaks: bool
    ) -> None:
        os.set_blocking(target, False)
        self._source, self._target = source, target
        self._writer, self._reader = writer, reader
        self._breaks = breaks
        self._heard = True
        self._watched = source
        self._pending = b""
        self._closed_by: Ending | None = None
        self._open = True
        self.hung_up_at = math.inf
        self.due = math.inf
        self.moved_at = 0.0

    def register(self, selector: selectors.BaseSelector) -> None:
        """Have a selector watch the writer's output."""
        selector.register(self._source, selectors.EVENT_READ, self)

    def move(self, selector: selectors.BaseSelector, fd: int) -> None:
        """Take, or give, what can be taken or given now; the writer waits for a slow reader."""
        if fd == self._source:
            self._pending = os.read(fd, _CHUNK)
            if not self._pending:
                self._note_close(selector, self._writer)
                return
        if not self._heard:
            return
        try:
            with contextlib.suppress(BlockingIOError):
                self._pending = self._pending[os.write(self._target, self._pending) :]
                self.moved_at = time.monotonic()
        except BrokenPipeError:
            self._note_close(selector, self._reader)
            return
        if self._pending:
            self._watch(selector, self._target, selectors.EVENT_WRITE)
        else:
            self._watch(selector, self._source, selectors.EVENT_READ)

    def settle(self, selector: selectors.BaseSelector) -> None:
        """Pass on that a pipe was closed, once its owner has ended or has had time to."""
        owner, now = self._closed_by, time.monotonic()
        if owner is None or not (owner.ended or now >= self.due):
            return
        if owner is self._reader and (owner.ended or not self._breaks):
            self._closed_by, self.due, self._heard = None, math.inf, False
            self._watched = self._source
            self.register(selector)
            return
        if owner is self._writer and not owner.ended:
            self.hung_up_at = now
        self.close()

    def close(self) -> None:
        """Close both ends, for good."""
        if self._open:
            os.close(self._source)
            os.close(self._target)
        self._open, self._closed_by, self.due = False, None, math.inf

    def _watch(self, selector: selectors.BaseSelector, fd: int, events: int) -> None:
        if fd != self._watched:
            selector.unregister(self._watched)
            selector.register(fd, events, self)
            self._watched = fd

    def _note_close(self, selector: selectors.BaseSelector, owner: Ending) -> None:
        selector.unregister(self._watched)
        self._closed_by, self.due = owner, time.monotonic() + _REPORT_S
