"""Ctrl-C and SIGTERM: the first ends the work where nothing is torn, the second at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """The first SIGINT or SIGTERM. `exit_code` is what a shell reports for the signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class Interrupts:
    """While entered, the first signal raises `Interrupted`, and the second ends the process."""

    def __init__(self) -> None:
        self._before: dict[int, signal.Handlers] = {}
        self._held = False
        self._pending = 0

    def __enter__(self) -> "Interrupts":
        for signum in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(signum)
            if before is not signal.SIG_IGN:  # as under nohup: it stays ignored
                self._before[signum] = before  # type: ignore[assignment]
                signal.signal(signum, self._on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        for signum, before in self._before.items():
            signal.signal(signum, before)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the first signal back until the block is done."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._pending:
            raise Interrupted(self._pending)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        if not self._held:
            raise Interrupted(signum)
        self._pending = signum
