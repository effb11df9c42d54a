"""What the runner refuses a program in person, and so hears of.

Where no namespaces surround a program it may start no processes and open no sockets. It need not
fail of that: it may catch the error, or never look, as `os.system` does, and then give an answer
that it would not give elsewhere. So these calls wait until the runner has noted them and said no.

Source: seccomp_unotify(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct

from . import seccomp

_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # ioctl numbers, with the sizes of the two structures
_CALL = struct.Struct("=QIIi60x")  # id, process, flags, number of the call; the rest is not used
_ANSWER = struct.Struct("=QqiI")  # id, result, error, flags


def install(told: bytes, untold: bytes, report_fd: int) -> None:
    """Close the program off, in its own process, and give the runner what it hears through.

    Args:
        told: the filter whose refusals wait for the runner.
        untold: the same, refusing by itself, where another listener is in force already.
        report_fd: the program's end of the socket to the runner.
    """
    try:
        listeners = [seccomp.install_told(told)]
    except OSError:
        seccomp.install(untold)
        listeners = []
    with socket.socket(fileno=os.dup(report_fd)) as report:
        socket.send_fds(report, [b"\n"], listeners)
    for listener in listeners:
        os.close(listener)


class Refusals:
    """The runner's side.

    Args:
        report: the runner's end of the socket; what was given at `install` is taken from it. None
            for a program without such a filter.

    Attributes:
        noted: what the program tried; empty if it tried nothing.
    """

    def __init__(self, report: socket.socket | None) -> None:
        self.noted = ""
        self._listener = -1
        if report is not None:
            # None comes from a program that has ended, or could not have one.
            _, fds, _, _ = socket.recv_fds(report, 1, 1)
            self._listener = fds[0] if fds else -1

    def register(self, poll: select.poll) -> None:
        """Have the listener watched, if there is one."""
        if self._listener >= 0:
            poll.register(self._listener, select.POLLIN)

    def answer(self, poll: select.poll, ready: dict[int, int]) -> None:
        """Refuse a call that waits, if one does.

        Args:
            poll: where the listener is registered.
            ready: descriptors with what the poll said of them.
        """
        if self._listener not in ready:
            return
        if not ready[self._listener] & select.POLLIN:  # nobody is left to make a call
            poll.unregister(self._listener)
            return
        call = bytearray(_CALL.size)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, call)
            number, _, _, called = _CALL.unpack(call)
            starts = not seccomp.is_socket(called)
            self.noted = "starts processes" if starts else self.noted or "opens sockets"
            error = errno.EAGAIN if starts else errno.EPERM
            fcntl.ioctl(self._listener, _SEND, _ANSWER.pack(number, 0, -error, 0))
        except OSError as error:
            if error.errno != errno.ENOENT:  # it was killed meanwhile
                raise

    def close(self) -> None:
        """Hear no more."""
        if self._listener >= 0:
            os.close(self._listener)
            self._listener = -1
