"""Entry points: what an installed command calls.

They import the rest themselves, so that Ctrl-C ends a command quietly also while it is imported.
"""

import atexit
import os
import sys
from contextlib import suppress
from typing import NoReturn


def run() -> NoReturn:
    """`hydragen`."""
    _start("hydragen")


def run_sample() -> NoReturn:
    """`hydragen-sample`."""
    _start("hydragen-sample")


def run_eval() -> NoReturn:
    """`hydragen-eval`."""
    _start("hydragen-eval")


def _start(name: str) -> NoReturn:
    end = _End()
    if sys._getframe(2).f_globals["__name__"] == "__main__":  # else the process has other work
        atexit.register(end.leave)  # the first, so it runs after all others
    try:
        from hydragen_cli.program import start

        start(name)
    except KeyboardInterrupt:
        sys.exit(130)
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
