"""The program's side of a function-style test: answers calls, one JSON line each.

The calls come from the judge, or from the test code in a process of its own: what a test expects
is never in the memory of the program that is tested.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import sys
import types
from collections.abc import Iterator
from types import CodeType
from typing import Any

from . import wire

_PRELUDE = ("typing", "collections", "heapq", "bisect", "itertools", "functools", "math")
_CONTAINERS = (list, dict, set, bytearray)


def main(sources: list[CodeType], *, prelude: bool) -> None:
    """Run the program as a module, then answer until nobody asks any more.

    Args:
        sources: the program.
        prelude: the names that LeetCode gives a solution are there before it runs.
    """
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # what the program prints is no answer
    # Not `__main__`: a program's own main section is not what is asked for here.
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    given: dict[str, Any] = {}
    if prelude:
        _fill(given)
    module.__dict__.update(given)
    exec(sources[0], module.__dict__)
    service = _Service(module, given, lazy=not prelude)
    for line in requests:
        reply = service.answer(json.loads(line))
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _fill(namespace: dict[str, Any]) -> None:
    for name in _PRELUDE:
        library = importlib.import_module(name)
        public = getattr(library, "__all__", [n for n in dir(library) if not n.startswith("_")])
        namespace.update({n: getattr(library, n) for n in public})
    for name in (*_PRELUDE, "random", "re", "string", "sys"):
        namespace[name] = importlib.import_module(name)


class _Service:
    def __init__(self, module: types.ModuleType, given: dict[str, Any], *, lazy: bool) -> None:
        self._lazy = lazy  # iterators are read by whoever asks, as far as he wants
        self._names = module.__dict__
        self._given = given
        self._objects: list[Any] = []
        self._held: dict[int, BaseException] = {}  # what an iterator raised after its last items

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {
                "look": self._look, "call": self._call, "get": self._get, "next": self._next
            }[request["do"]](request)  # fmt: skip
        except BaseException as error:  # exit() and all: the test decides what it means
            kinds = [kind.__name__ for kind in type(error).__mro__]
            reply = {"raised": kinds, "text": _text_of(error)}
            with contextlib.suppress(Exception):  # of arguments that have no plain form
                reply["args"] = [wire.encode(part, _refuse) for part in error.args]
                json.dumps(reply)
                return reply
            return {"raised": kinds, "text": _text_of(error)}

    def _look(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"ok": [self._look_at(name) for name in request["names"]]}

    def _look_at(self, name: str) -> dict[str, Any]:
        if name not in self._names:
            return {"kind": "absent"}
        value = self._names[name]
        if isinstance(value, types.ModuleType):
            return {"kind": "module", "ok": value.__name__}
        if callable(value):
            return {"kind": "callable"}
        return {"kind": "value", "ok": self._encode(value)}

    def _call(self, request: dict[str, Any]) -> dict[str, Any]:
        target = self._target(request["target"])
        given = request["args"]
        args = [self._decode(argument) for argument in given]
        named = {name: self._decode(value) for name, value in request.get("named", {}).items()}
        reply = {"ok": self._encode(target(*args, **named))}
        # A function that works in place shows in its arguments.
        changed = {
            str(i): after
            for i, argument in enumerate(args)
            if isinstance(argument, _CONTAINERS) and (after := self._encode(argument)) != given[i]
        }
        return {**reply, "changed": changed} if changed else reply

    def _get(self, request: dict[str, Any]) -> dict[str, Any]:
        value = getattr(self._objects[request["object"]], request["name"])
        if callable(value):
            return {"kind": "callable", "ok": self._refer(value)}
        return {"kind": "value", "ok": self._encode(value)}

    def _next(self, request: dict[str, Any]) -> dict[str, Any]:
        """The next items of an iterator, fewer than asked for at its end or before an error."""
        number, items = request["object"], list[Any]()
        if number in self._held:
            raise self._held.pop(number)
        try:
            for item in itertools.islice(self._objects[number], request["most"]):
                items.append(self._encode(item))
        except BaseException as error:
            if not items:
                raise
            self._held[number] = error
        return {"ok": items}

    def _target(self, target: Any) -> Any:
        if isinstance(target, int):
            return self._objects[target]
        # What the prelude gave, `count` of itertools for one, is not what a test means.
        if target in self._names and self._names[target] is not self._given.get(target):
            return self._names[target]
        if "Solution" in self._names and hasattr(self._names["Solution"], target):
            return getattr(self._names["Solution"](), target)
        raise NameError(f"name {target!r} is not defined")

    def _encode(self, value: Any) -> Any:
        if self._lazy and isinstance(value, Iterator):
            return {"object": self._refer(value), "type": type(value).__name__, "iterator": True}
        return wire.encode(value, self._refer)

    def _decode(self, plain: Any) -> Any:
        return wire.decode(plain, lambda reference: self._target(reference["object"]))

    def _refer(self, value: Any) -> int:
        self._objects.append(value)
        return len(self._objects) - 1


def _refuse(value: Any) -> int:
    raise TypeError(f"a {type(value).__name__} has no plain form")


def _text_of(error: BaseException) -> str:
    try:
        return str(error)[:2000]
    except Exception:
        return ""
