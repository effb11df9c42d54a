"""Test code in the program's own process, for tests that share objects with it.

The program is loaded as a module, and the test runs among the module's names, as if its text stood
below the program's. How it ended is one line on what was stdout: the word that came on stdin after
the program was loaded, and JSON.
"""

from __future__ import annotations

import json
import os
import sys
import types
from types import CodeType

from .harness import ACCEPTED, RAISED, WRONG
from .process import show_error

_LEAVING = {"exit", "quit", "SystemExit", "main"}  # by these words a test ends itself


def main(sources: list[CodeType]) -> None:
    """Load the program, run the test, tell how it ended.

    Args:
        sources: the program, the test code.
    """
    words = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # what the program prints is no answer
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    exec(sources[0], module.__dict__)
    # The test is the main program, with a main section if it likes; the program has none.
    module.__name__ = "__main__"
    sys.modules["__main__"] = module
    word = words.readline().strip()
    answers.write(word + json.dumps(_ending(sources, module)) + "\n")
    answers.flush()


def _ending(sources: list[CodeType], module: types.ModuleType) -> tuple[int, str]:
    """Run the test: its status and the reason for it."""
    try:
        exec(sources[1], module.__dict__)
    except AssertionError as error:
        return WRONG, str(error)[:2000] or "an assertion failed"
    except BaseException as error:  # exit() and all
        message = f"{type(error).__name__}: {error}"[:2000]
        if _is_the_programs(error, sources, module):
            status = RAISED
        elif isinstance(error, SystemExit) and error.code in (None, 0):
            return ACCEPTED, ""
        else:
            status = WRONG
        show_error(type(error), error, error.__traceback__)
        return status, message
    return ACCEPTED, ""


def _is_the_programs(
    error: BaseException, sources: list[CodeType], module: types.ModuleType
) -> bool:
    """Whether an error came out of the program's code, or for want of it, or is not a test's."""
    program, tests = sources
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == program.co_filename:
            return True
        trace = trace.tb_next
    if isinstance(error, NameError):
        return getattr(error, "name", None) not in module.__dict__
    if isinstance(error, SystemExit):
        return _LEAVING.isdisjoint(tests.co_names)
    return not isinstance(error, Exception)
