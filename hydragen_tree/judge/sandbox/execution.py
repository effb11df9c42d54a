"""Programs that run: the judge moves what goes through their pipes, and waits for their end."""

import contextlib
import json
import math
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from hydragen_tree.judge.sandbox.relay import Relay
from hydragen_tree.judge.sandbox.streams import Streams

_ANSWER_S = 5.0
_DRAIN_S = 0.5  # after the end, for what is still in the pipes
_CHUNK = 1 << 16


class Execution:
    """A program, from its start until the runner has reported its end and its pipes are empty.

    Args:
        control: the judge's end of the runner's socket.
        streams: the judge's ends of the program's pipes.
        wall_s: elapsed time after which the runner ends the program.
        kill: kills the container, where it does not keep to that.

    Attributes:
        answer: what the runner reported of the end.
        error: why it will never report one.
    """

    def __init__(
        self,
        control: socket.socket,
        streams: Streams,
        wall_s: float,
        kill: Callable[[], None],
    ) -> None:
        self.streams = streams
        self.answer: dict[str, Any] | None = None
        self.error: Exception | None = None
        self._control, self._kill = control, kill
        self._patience_s = wall_s + _ANSWER_S
        self.deadline = time.monotonic() + self._patience_s
        self._kill_sent = False

    @property
    def ended(self) -> bool:
        """Whether the end is on record, or will never be."""
        return self.answer is not None or self.error is not None

    def register(self, selector: selectors.BaseSelector) -> None:
        """Have a selector watch all that is the program's."""
        selector.register(self._control, selectors.EVENT_READ, self)
        self.streams.register(selector, self)

    def move(self, selector: selectors.BaseSelector, fd: int) -> None:
        """Take, or give, what can be taken or given now."""
        try:
            if fd == self._control.fileno():
                self._receive_answer(selector)
            else:
                self.streams.move(selector, fd)
            if self.streams.too_much and not self._kill_sent and not self.ended:
                self._control.send(b"kill")
                self._kill_sent = True
        except (OSError, ValueError) as error:
            self._end(selector, error)

    def expire(self, selector: selectors.BaseSelector) -> None:
        """Wait no longer."""
        late = TimeoutError(f"no answer within {self._patience_s:.0f} s")
        # With an answer: a process that escaped our reach holds a pipe open.
        self._end(selector, late if self.answer is None else None)

    def _receive_answer(self, selector: selectors.BaseSelector) -> None:
        data = self._control.recv(_CHUNK)
        if not data:
            raise ConnectionError("the runner has died")
        self.answer = json.loads(data)
        self.deadline = time.monotonic() + _DRAIN_S
        selector.unregister(self._control)
        self.streams.stop_feeding(selector)

    def _end(self, selector: selectors.BaseSelector, error: Exception | None) -> None:
        for key in _watched(selector, self):
            selector.unregister(key.fileobj)
        if error is not None:
            self.error = error
            self._kill()


def communicate(*programs: Execution, relays: Sequence[Relay] = ()) -> None:
    """Feed and read programs until all have ended.

    Args:
        programs: each in a box of its own.
        relays: what passes on the output of one to another; closed here.
    """
    with contextlib.ExitStack() as ours, selectors.PollSelector() as selector:
        for relay in relays:
            ours.callback(relay.close)
            relay.register(selector)
        for program in programs:
            program.register(selector)
        watched, due = -1, 0.0
        while True:
            # Messages of a conversation change nothing but what passes; all else is looked at again
            # only when a pipe has come or gone, or the time has.
            if len(selector.get_map()) != watched or time.monotonic() >= due:
                for program in programs:
                    if time.monotonic() >= program.deadline and _watched(selector, program):
                        program.expire(selector)
                for relay in relays:
                    relay.settle(selector)
                active = [one for one in programs if _watched(selector, one)]
                if not active:
                    return
                watched = len(selector.get_map())
                due = min(
                    *(one.deadline for one in active), *(relay.due for relay in relays), math.inf
                )
            for key, _ in selector.select(max(0.0, due - time.monotonic())):
                if key.fd in selector.get_map():  # not closed by an event before it
                    key.data.move(selector, key.fd)


def _watched(selector: selectors.BaseSelector, program: Execution) -> list[selectors.SelectorKey]:
    return [key for key in selector.get_map().values() if key.data is program]
