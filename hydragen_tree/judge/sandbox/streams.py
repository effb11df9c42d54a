"""The judge's ends of a program's pipes: its input is fed, its output read up to a limit."""

import contextlib
import os
import selectors
from dataclasses import dataclass, field

_CHUNK = 1 << 16
_EXCERPT = 4096


@dataclass(slots=True)
class Streams:
    """The judge's ends of one program's pipes, and what came through them."""

    stdin: int | None
    pending: memoryview
    stdout: int | None
    stderr: int
    limit_bytes: int
    out: list[bytes] = field(default_factory=list)
    out_bytes: int = 0
    err_head: bytearray = field(default_factory=bytearray)
    err_tail: bytearray = field(default_factory=bytearray)
    err_bytes: int = 0

    @property
    def too_much(self) -> bool:
        """Whether more was written to one of the two than is allowed."""
        return max(self.out_bytes, self.err_bytes) > self.limit_bytes

    def register(self, selector: selectors.BaseSelector, owner: object) -> None:
        """Have a selector watch every pipe that is ours, with `owner` as its data."""
        for fd in (self.stdout, self.stderr):
            if fd is not None:
                selector.register(fd, selectors.EVENT_READ, owner)
        if self.stdin is not None:
            selector.register(self.stdin, selectors.EVENT_WRITE, owner)

    def move(self, selector: selectors.BaseSelector, fd: int) -> None:
        """Move one portion through the pipe that is ready."""
        if fd == self.stdin:
            self._feed(selector, fd)
            return
        chunk = os.read(fd, _CHUNK)
        if not chunk:
            selector.unregister(fd)
        elif fd == self.stdout:
            self._take_output(chunk)
        else:
            self._take_error(chunk)

    def stop_feeding(self, selector: selectors.BaseSelector) -> None:
        """Close the program's input."""
        if self.stdin is not None:
            selector.unregister(self.stdin)
            os.close(self.stdin)
            self.stdin = None

    def close(self) -> None:
        """Close every pipe that is still open."""
        for end in (self.stdin, self.stdout, self.stderr):
            if end is not None:
                os.close(end)

    def _feed(self, selector: selectors.BaseSelector, fd: int) -> None:
        try:
            self.pending = self.pending[os.write(fd, self.pending[:_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it does not read its input to the end: its own affair
            self.pending = memoryview(b"")
        if not self.pending:
            self.stop_feeding(selector)

    def _take_output(self, chunk: bytes) -> None:
        self.out_bytes += len(chunk)
        if self.out_bytes <= self.limit_bytes:
            self.out.append(chunk)

    def _take_error(self, chunk: bytes) -> None:
        self.err_bytes += len(chunk)
        room = _EXCERPT - len(self.err_head)
        self.err_head += chunk[:room]
        self.err_tail += chunk[room:]
        del self.err_tail[:-_EXCERPT]


def input_pipe(
    stdin: bytes | int, theirs: contextlib.ExitStack, ours: contextlib.ExitStack
) -> tuple[int, int | None]:
    """Where a program reads from.

    Args:
        stdin: bytes to be written to a new pipe, or a descriptor to be used as it is.
        theirs: closes the program's end once it has begun.
        ours: closes our end.

    Returns:
        (the program's end, ours); ours does not block, and is None for a descriptor that was given.
    """
    if isinstance(stdin, int):
        return stdin, None
    read, write = os.pipe()
    theirs.callback(os.close, read)
    ours.callback(os.close, write)
    os.set_blocking(write, False)
    return read, write


def output_pipe(
    stdout: int | None, theirs: contextlib.ExitStack, ours: contextlib.ExitStack
) -> tuple[int | None, int]:
    """Where a program writes to.

    Args:
        stdout: a descriptor to be used as it is; None for a new pipe.
        theirs: closes the program's end once it has begun.
        ours: closes our end.

    Returns:
        (our end, the program's); ours is None for a descriptor that was given.
    """
    if stdout is not None:
        return None, stdout
    read, write = os.pipe()
    theirs.callback(os.close, write)
    ours.callback(os.close, read)
    return read, write


def memory_file(content: bytes, theirs: contextlib.ExitStack) -> int:
    """A file in memory that holds `content`; `theirs` closes it.

    Returns:
        Its descriptor, which stands after the content.
    """
    fd = os.memfd_create("hydragen")
    theirs.callback(os.close, fd)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    return fd
