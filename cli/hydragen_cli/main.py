"""Entry points: each runs a command and raises SystemExit.

They import the rest themselves, so that Ctrl-C ends a command quietly also while it is imported.
"""

import sys
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
    try:
        from hydragen_cli.program import start

        start(name)
    except KeyboardInterrupt:
        sys.exit(130)
