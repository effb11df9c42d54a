"""The test's side of a test that runs apart from the program: runs the test code, in a process of
its own.

The names that the test code uses and does not define are the program's functions: stand-ins that
ask the program's process. Results are rebuilt from plain parts. An object that has none is stood in
for by one that knows of all operations that its class answers, and answers none of them: where the
test needs one it can be judged no further. The exit status is the verdict.
"""

from __future__ import annotations

import builtins
import json
import os
import random
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any, NoReturn

from . import wire

ACCEPTED, WRONG, RAISED, GONE, REFUSED = 42, 43, 44, 45, 46
_LONGEST_LINE = 1 << 26
NESTED = "the program's result is nested too deeply to be taken apart"
_NO_ANSWERS = "the program wrote to the channel of its answers"


def main(sources: list[CodeType]) -> NoReturn:
    """Run the test code against the program behind stdin and stdout.

    Args:
        sources: the test code.
    """
    random.seed()  # as after every `os.fork`, which this process may not come from
    link = _Link()
    functions = {name: _Function(link, name) for name in _free_names(sources[0])}
    status, message = ACCEPTED, ""
    try:
        exec(sources[0], {"__name__": "tests", **functions})
    except AssertionError as error:
        status, message = WRONG, str(error) or "an assertion failed"
    except _RaisedError as error:
        status, message = RAISED, str(error)
    except _GoneError as error:
        status, message = GONE, str(error)
    except _RefusedError as error:
        status, message = REFUSED, str(error)
    except Exception as error:  # an answer that the test cannot even look at
        status, message = WRONG, f"{type(error).__name__}: {error}"
    sys.stderr.write(message[:2000])
    sys.stderr.flush()
    os._exit(status)


class _GoneError(Exception):
    """The program's process has ended, or talks nonsense."""


class _RaisedError(Exception):
    """An exception of the program."""


class _RefusedError(Exception):
    """Something that only the program's own objects could answer."""


class _Link:
    """The conversation with the program."""

    def __init__(self) -> None:
        self._replies = os.fdopen(os.dup(0), encoding="utf-8", errors="replace")
        self._requests = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)  # what the test prints is no request

    def call(self, target: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """What the program gives for a call of a function, a method, or an iterator's items.

        Args:
            target: the function's name, or (object, name of a method).
            args: by position.
            named: by name.
        """
        given = [wire.encode(argument, _no_object) for argument in args]
        request = {"target": target, "args": given}
        request["named"] = {name: wire.encode(value, _no_object) for name, value in named.items()}
        try:
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
            line = self._replies.readline(_LONGEST_LINE)
        except OSError:
            line = ""
        if not line.endswith("\n"):
            raise _GoneError("the program ended before the test did")
        try:
            reply = json.loads(line)
            raised, refused = reply.get("raised"), reply.get("refused")
        except RecursionError:
            raise _RefusedError(NESTED) from None
        except (ValueError, AttributeError):
            raise _GoneError(_NO_ANSWERS) from None
        if refused:
            raise _RefusedError(str(refused))
        if raised == "AssertionError":
            raise AssertionError(reply.get("text"))
        if raised:
            raise _RaisedError(f"{raised}: {reply.get('text')}")
        try:
            return wire.decode(reply.get("ok"), self._stand_in)
        except RecursionError:
            raise _RefusedError(NESTED) from None
        except (ValueError, TypeError, KeyError) as error:
            raise _GoneError(f"the program gave no value: {error}") from None

    def _stand_in(self, reference: dict[str, Any]) -> _Object:
        kind, has = str(reference.get("type")), set(reference.get("has", ()))
        answers = {name: _refusing(kind, name) for name in has.intersection(wire.OPERATIONS)}
        if "__eq__" in answers:
            answers.setdefault("__hash__", _refusing(kind, "__hash__"))
        if "__iter__" in has:
            answers.setdefault("__contains__", _refusing(kind, "__contains__"))
        if "__next__" in has:
            answers["__iter__"] = _Object.items
        stand_in: _Object = type(kind, (_Object,), answers)(self, int(reference["object"]))
        return stand_in


class _Function:
    """A function of the program."""

    def __init__(self, link: _Link, target: Any) -> None:
        self._link, self._target = link, target

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._link.call(self._target, args, named)


class _Object:
    """An object of the program that has no plain form. Its methods can be called."""

    def __init__(self, link: _Link, number: int) -> None:
        self._link, self._number = link, number

    def __getattr__(self, name: str) -> _Function:
        return _Function(self._link, (self._number, name))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of the program>"

    def items(self) -> Any:
        """What an iterator gives, all of it: nothing that a plain test does ends before it."""
        return iter(self._link.call((self._number, "__iter__"), (), {}))


def _refusing(kind: str, operation: str) -> Callable[..., NoReturn]:
    def refuse(*_: Any) -> NoReturn:
        raise _RefusedError(
            f"the program gave a {kind} where the test compares plain values, and what its"
            f" {operation} says is not asked"
        )

    return refuse


def _no_object(value: Any) -> NoReturn:
    raise _RefusedError(f"an argument of type {type(value).__name__} cannot be given to a program")


def _free_names(code: CodeType) -> list[str]:
    """Global names in a test's code that Python does not know."""
    names = dict.fromkeys(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names.update(dict.fromkeys(_free_names(constant)))
    return [name for name in names if not hasattr(builtins, name)]
