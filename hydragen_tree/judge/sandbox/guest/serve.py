"""The program's side of a function-style test: answers calls, one JSON line each.

The calls come from the judge, or from the test code in a process of its own: what a test expects
is never in the memory of the program that is tested.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import types
from collections.abc import Iterator
from types import CodeType
from typing import Any

from . import wire
from .harness import NESTED
from .process import show_error

_PRELUDE = ("typing", "collections", "heapq", "bisect", "itertools", "functools", "math")
_LIKE_PLAIN = (memoryview, types.MappingProxyType)  # in what they equal


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
    service = _Service(module, given, parts=prelude)
    for line in requests:
        replies.write(service.answer(json.loads(line)) + "\n")
        replies.flush()


def _fill(namespace: dict[str, Any]) -> None:
    for name in _PRELUDE:
        library = importlib.import_module(name)
        public = getattr(library, "__all__", [n for n in dir(library) if not n.startswith("_")])
        namespace.update({n: getattr(library, n) for n in public})
    for name in (*_PRELUDE, "random", "re", "string", "sys"):
        namespace[name] = importlib.import_module(name)


class _Service:
    def __init__(self, module: types.ModuleType, given: dict[str, Any], *, parts: bool) -> None:
        # Either only the parts of a result count, or what its class says of them does too.
        self._keep = None if parts else _has_own_operations
        self._names = module.__dict__
        self._given = given
        self._objects: list[Any] = []

    def answer(self, request: dict[str, Any]) -> str:
        try:
            result = self._call(request)
        except BaseException as error:  # exit() and all
            show_error(type(error), error, error.__traceback__)
            return _raised(error)
        try:
            return json.dumps({"ok": wire.encode(result, self._refer, self._keep)})
        except RecursionError as error:
            return _raised(error) if self._keep is None else json.dumps({"refused": NESTED})
        except BaseException as error:  # of an object that looks like a plain one
            return _raised(error)

    def _call(self, request: dict[str, Any]) -> Any:
        args = [wire.decode(argument, _refuse) for argument in request["args"]]
        named = {n: wire.decode(v, _refuse) for n, v in request.get("named", {}).items()}
        if isinstance(request["target"], str):
            return self._function(request["target"])(*args, **named)
        number, method = request["target"]
        result = getattr(self._objects[number], method)(*args, **named)
        return list(result) if method == "__iter__" else result

    def _function(self, name: str) -> Any:
        # What the prelude gave, `count` of itertools for one, is not what a test means.
        if name in self._names and self._names[name] is not self._given.get(name):
            return self._names[name]
        if self._keep is None and hasattr(self._names.get("Solution"), name):
            return getattr(self._names["Solution"](), name)
        raise NameError(f"name {name!r} is not defined")

    def _refer(self, value: Any) -> dict[str, Any]:
        self._objects.append(value)
        reference = {"object": len(self._objects) - 1, "type": type(value).__name__}
        if self._keep is not None:
            reference["has"] = [name for name in wire.OPERATIONS if _answers(value, name)]
        return reference


def _has_own_operations(value: Any) -> bool:
    """Whether something that has plain parts is compared or read in another way than they are."""
    if isinstance(value, Iterator):
        return True
    kind = type(value)
    base = next((plain for plain in wire.PLAIN if isinstance(value, plain)), kind)
    own = {name for name in wire.OPERATIONS if _method(kind, name) is not _method(base, name)}
    return bool(own - {"__hash__"}) and not _equals_all(value)


def _method(kind: type, name: str) -> Any:
    """What a class, not the class of the class, has under a name."""
    return next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)


def _answers(value: Any, name: str) -> bool:
    """Whether an operation on an object could give another result than on any `object()`."""
    method = _method(type(value), name)
    if method is _method(object, name):
        return False
    if name not in ("__eq__", "__ne__"):
        return True
    if isinstance(method, types.WrapperDescriptorType):  # of a pattern, a date: equal to its like
        return isinstance(value, (*wire.PLAIN, *_LIKE_PLAIN))
    return not _equals_all(value)


def _equals_all(value: Any) -> bool:
    """Whether it says to be equal to just anything, which is no answer."""
    try:
        return bool(value == object())
    except BaseException:
        return False


def _refuse(reference: Any) -> Any:
    raise TypeError(f"a {type(reference).__name__} has no plain form")


def _raised(error: BaseException) -> str:
    return json.dumps({"raised": type(error).__name__, "text": _text_of(error)})


def _text_of(error: BaseException) -> str:
    try:
        return str(error)[:2000]
    except Exception:
        return ""
