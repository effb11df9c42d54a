"""The test's side of a function-style test: runs the test code, in a process of its own.

The names that the test code uses and does not define belong to the program: functions become
stand-ins that ask the program's process, values are fetched. The exit status is the verdict.
"""

from __future__ import annotations

import builtins
import importlib
import json
import os
import random
import sys
from collections import deque
from types import CodeType
from typing import Any, NoReturn

from . import wire

ACCEPTED, WRONG, RAISED, GONE, UNDEFINED = 42, 43, 44, 45, 46
_LONGEST_LINE = 1 << 26
_ONE_BY_ONE, _MOST_ITEMS = 16, 1024  # of an iterator
_NO_ANSWERS = "the program wrote to the channel of its answers"


def main(sources: list[CodeType]) -> NoReturn:
    """Run the test code against the program behind stdin and stdout.

    Args:
        sources: the test code.
    """
    random.seed()  # as after every `os.fork`, which this process may not come from
    link = _Link()
    status, message = ACCEPTED, ""
    try:
        exec(sources[0], {"__name__": "tests", **link.names(_free_names(sources[0]))})
    except AssertionError as error:
        status, message = WRONG, str(error) or "an assertion failed"
    except _RaisedError as error:
        status, message = RAISED, f"{error.kind}: {error.text}"
    except _GoneError as error:
        status, message = GONE, str(error)
    except NameError as error:
        absent = getattr(error, "name", None) in link.absent
        status, message = (UNDEFINED if absent else WRONG), str(error)
    except Exception as error:  # an answer that the test cannot even look at
        status, message = WRONG, f"{type(error).__name__}: {error}"
    sys.stderr.write(message[:2000])
    sys.stderr.flush()
    os._exit(status)


class _GoneError(Exception):
    """The program's process has ended, or talks nonsense."""


class _RaisedError(Exception):
    """An exception of the program that the test did not expect."""

    kind = text = ""


class _Link:
    """The conversation with the program."""

    def __init__(self) -> None:
        self._replies = os.fdopen(os.dup(0), encoding="utf-8", errors="replace")
        self._requests = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)  # what the test prints is no request
        self.absent: set[str] = set()

    def names(self, wanted: list[str]) -> dict[str, Any]:
        """What the program has under the names, where it has anything."""
        found: dict[str, Any] = {}
        replies = self.ask({"do": "look", "names": wanted}).get("ok")
        if not isinstance(replies, list):
            raise _GoneError(_NO_ANSWERS)
        for name, reply in zip(wanted, replies):
            kind = reply.get("kind") if isinstance(reply, dict) else None
            if kind == "callable":
                found[name] = _Function(self, name, name)
            elif kind == "value":
                found[name] = self.decode(reply["ok"])
            elif kind == "module":
                found[name] = _library(reply["ok"])
            else:
                self.absent.add(name)
        return found

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
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
            raised = reply.get("raised")
        except (ValueError, RecursionError, AttributeError):
            raise _GoneError(_NO_ANSWERS) from None
        if raised:
            text = str(reply.get("text", ""))
            args = self.decode(reply["args"]) if "args" in reply else [text]
            raise _rebuilt_error(raised, text, args)
        return dict(reply)

    def encode(self, value: Any) -> Any:
        return wire.encode(value, _refer)

    def decode(self, plain: Any) -> Any:
        try:
            return wire.decode(plain, self._stand_in)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise _GoneError(f"the program gave no value: {error}") from None

    def call(self, target: str | int, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        request = {
            "do": "call",
            "target": target,
            "args": [self.encode(argument) for argument in args],
            "named": {name: self.encode(value) for name, value in named.items()},
        }
        reply = self.ask(request)
        for index, after in reply.get("changed", {}).items():
            _replace(args[int(index)], self.decode(after))
        return self.decode(reply.get("ok"))

    def _stand_in(self, reference: dict[str, Any]) -> Any:
        return (_Iterator if reference.get("iterator") else _Object)(self, reference)


class _Function:
    """A function of the program."""

    def __init__(self, link: _Link, target: str | int, name: str) -> None:
        self._link, self.target, self.__name__ = link, target, name

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._link.call(self.target, args, named)


class _Object:
    """An object of the program that has no plain form. It equals nothing but itself."""

    def __init__(self, link: _Link, reference: dict[str, Any]) -> None:
        self._link, self.number = link, int(reference["object"])
        self._type = str(reference.get("type"))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        reply = self._link.ask({"do": "get", "object": self.number, "name": name})
        if reply.get("kind") == "callable":
            return _Function(self._link, int(reply["ok"]), name)
        return self._link.decode(reply.get("ok"))

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._link.call(self.number, args, named)

    def __len__(self) -> int:
        return int(self._special("__len__"))

    def __iter__(self) -> Any:
        return iter(self._special("__iter__"))

    def __getitem__(self, key: Any) -> Any:
        return self._special("__getitem__", key)

    def __contains__(self, item: Any) -> bool:
        return bool(self._special("__contains__", item))

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<{self._type} of the program>"

    def _special(self, name: str, *args: Any) -> Any:
        try:
            reply = self._link.ask({"do": "get", "object": self.number, "name": name})
        except AttributeError:
            raise TypeError(f"a {self._type} has no {name}") from None
        return self._link.call(int(reply["ok"]), args, {})


class _Iterator(_Object):
    """An iterator of the program, which may be endless: read no further than the test reads it.

    One item at a time at first, then more at once.
    """

    def __init__(self, link: _Link, reference: dict[str, Any]) -> None:
        super().__init__(link, reference)
        self._items: deque[Any] = deque()
        self._most = self._read = 0

    def __iter__(self) -> _Iterator:
        return self

    def __next__(self) -> Any:
        if not self._items:
            self._most = 1 if self._read < _ONE_BY_ONE else min(2 * self._most, _MOST_ITEMS)
            request = {"do": "next", "object": self.number, "most": self._most}
            items = self._link.ask(request).get("ok")
            if not isinstance(items, list):
                raise _GoneError(_NO_ANSWERS)
            self._items.extend(self._link.decode(item) for item in items)
            self._read += len(items)
        if not self._items:
            raise StopIteration
        return self._items.popleft()


def _free_names(code: CodeType) -> list[str]:
    """Global names in a test's code that Python does not know."""
    names = dict.fromkeys(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names.update(dict.fromkeys(_free_names(constant)))
    return [name for name in names if not hasattr(builtins, name)]


def _rebuilt_error(kinds: Any, text: str, args: list[Any]) -> Exception:
    """The program's exception, as one that `except` clauses in the test recognise."""
    names = [str(kind) for kind in kinds] if isinstance(kinds, list) else ["Exception"]
    known = (getattr(builtins, name, None) for name in names)
    base = next((k for k in known if isinstance(k, type) and issubclass(k, Exception)), Exception)
    try:
        kind = type(names[0], (_RaisedError, base), {"kind": names[0], "text": text})
        error: Exception = kind(*args)
    except TypeError:  # an exception that is made in another way
        error = type(names[0], (_RaisedError,), {"kind": names[0], "text": text})(text)
    return error


def _replace(argument: Any, after: Any) -> None:
    if type(argument) is not type(after):
        return
    if isinstance(argument, (list, bytearray)):
        argument[:] = after
    elif isinstance(argument, (dict, set)):
        argument.clear()
        argument.update(after)


def _library(name: Any) -> Any:
    try:
        return importlib.import_module(str(name))
    except ImportError:
        return None


def _refer(value: Any) -> int | str:
    """What the program knows one of its own functions or objects by."""
    if isinstance(value, _Function):
        return value.target
    if isinstance(value, _Object):
        return value.number
    raise TypeError(f"an argument of type {type(value).__name__} cannot be given to a program")
