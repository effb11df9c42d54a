"""What an installed command calls: an entry point in a process that does nothing else."""

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from hydragen_cli import main


def run() -> NoReturn:
    """`hydragen`."""
    _only(main.run)


def run_sample() -> NoReturn:
    """`hydragen-sample`."""
    _only(main.run_sample)


def run_eval() -> NoReturn:
    """`hydragen-eval`."""
    _only(main.run_eval)


def _only(command: Callable[[], NoReturn]) -> NoReturn:
    end = _End()
    atexit.register(end.leave)  # the first, so it runs after all others
    try:
        command()
    except SystemExit as caught:
        end.code = caught.code
        raise


class _End:
    """The end of a process that has run a command.

    Attributes:
        code: what the command ended with; None as long as it has not.
    """

    code: object = None

    def leave(self) -> None:
        """Ends the process without taking apart what was imported: a fourth of a short run's time.

        Threads have ended and exit handlers have run. Where a stream cannot be written any more,
        it is left to Python to say so.
        """
        if not isinstance(self.code, int):
            return
        with suppress(OSError):
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
            os._exit(self.code)
