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
from types import CodeType, TracebackType

from .harness import ACCEPTED, RAISED, UNDEFINED, WRONG


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
    word = words.readline().strip()
    answers.write(word + json.dumps(_ending(sources, module)) + "\n")
    answers.flush()


def _ending(sources: list[CodeType], module: types.ModuleType) -> tuple[int, str]:
    """Run the test: its status and the reason for it."""
    program, tests = sources
    try:
        exec(tests, module.__dict__)
    except AssertionError as error:
        return WRONG, str(error)[:2000] or "an assertion failed"
    except NameError as error:
        inside = _passes(error.__traceback__, program)
        absent = getattr(error, "name", None) not in module.__dict__
        message = f"NameError: {error}" if inside else str(error)
        return (RAISED if inside else UNDEFINED if absent else WRONG), message[:2000]
    except BaseException as error:  # exit() and all
        inside = _passes(error.__traceback__, program)
        fault = inside or not isinstance(error, Exception)
        return (RAISED if fault else WRONG), f"{type(error).__name__}: {error}"[:2000]
    return ACCEPTED, ""


def _passes(trace: TracebackType | None, program: CodeType) -> bool:
    """Whether an error came out of the program's code, and not of the test's."""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == program.co_filename:
            return True
        trace = trace.tb_next
    return False
