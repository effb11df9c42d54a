"""The end of a Python program: as the interpreter ends it, without taking the interpreter apart.

Nobody sees an interpreter free its memory, and it costs more than most programs do. So where no
object alive would do anything when it is destroyed, what is left to do is done here, in CPython's
order: call what `atexit` has, flush, exit. Everything else is left to CPython: threads that still
run, an object with a finaliser, an exception, a trace function, a flush that fails.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import gc
import io
import resource
import sys
import types
import weakref
from collections.abc import Callable, Iterable
from sys import getprofile, gettrace  # as they are before any program
from typing import Any

from . import kernel

_INT = 1 << 31
# A list of all objects could bring a program that holds more than this over its limit.
_MUCH_KIB = 64 << 10
_TRACKED = 1 << 14  # Py_TPFLAGS_HAVE_GC: the collector knows all objects of the type
# To close one of these writes nothing.
_READERS = (io.FileIO, io.BufferedReader, io.BytesIO, io.StringIO)
_PROXIES = {weakref.ProxyType, weakref.CallableProxyType}
_LIBRARIES = ("_weakrefset", "weakref")  # their callbacks tidy up among themselves


class _Mark:
    """Something that the collector would no longer show if the program hid its objects from it."""


_mark: _Mark | None = None


def run(do: Callable[..., object], *given: Any, **named: Any) -> None:
    """Do what this process is there for, and exit; where CPython has to end it, return or raise.

    Args:
        do: called once.
        given: for `do`.
        named: for `do`.
    """
    global _mark
    _mark = _Mark()  # after the last `gc.freeze()` of ours
    status = 0
    try:
        do(*given, **named)
    except SystemExit as error:
        code = error.code
        if code is not None:
            if type(code) is not int or not -_INT <= code < _INT:
                raise
            status = code
    # No call before these two: a trace function would see it.
    if gettrace() is None and getprofile() is None:
        _leave(status)
    if status:
        raise SystemExit(status)


def _leave(status: int) -> None:
    """Exit, or return where that is for CPython to do; it repeats what was done here in vain."""
    for name in ("stderr", "stdout"):
        with contextlib.suppress(Exception):
            getattr(sys, name).flush()  # after a main program, as here, CPython does not mind
    if _thread._count():
        return
    try:
        threading = sys.modules.get("threading")
        if threading is not None:
            threading._shutdown()
        atexit._run_exitfuncs()
        if _thread._count() or _something_would_notice():
            return
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            if stream is not None and not stream.closed:
                stream.flush()
    except BaseException:
        return
    kernel.exit(status)


def _something_would_notice() -> bool:
    """Whether the destruction of any object could be seen from outside, or there are too many."""
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > _MUCH_KIB:
        return True
    objects = gc.get_objects()
    kinds = set(map(type, objects))
    # A program may have called `gc.freeze` too, or wait for collections.
    if _Mark not in kinds or gc.callbacks or gc.get_debug() or kinds & _PROXIES:
        return True
    finalised = {kind for kind in kinds if hasattr(kind, "__del__")}
    references = {kind for kind in kinds if issubclass(kind, weakref.ref)}
    classes = {kind for kind in kinds if issubclass(kind, type)}
    looked_at = finalised | references | classes
    own = set(map(id, _own_streams()))
    for thing in objects:
        kind = type(thing)
        if kind not in looked_at or id(thing) in own:
            continue
        if kind in classes:
            # Objects without attributes are not among those that the collector knows.
            if hasattr(thing, "__del__") and not thing.__flags__ & _TRACKED:
                return True
        elif kind in references:
            if not _is_tidying(thing.__callback__):
                return True
        elif not _is_reader(thing):
            return True
    return False


def _is_tidying(callback: Any) -> bool:
    if type(callback) is types.BuiltinFunctionType:
        return callback.__name__ == "_destroy"  # of abstract classes
    return callback is None or callback.__module__ in _LIBRARIES


def _own_streams() -> Iterable[object]:
    """The standard streams, which are flushed, and what is below them."""
    for stream in (sys.__stdin__, sys.__stdout__, sys.__stderr__):
        if type(stream) is io.TextIOWrapper:
            yield stream
            with contextlib.suppress(ValueError):  # detached
                yield stream.buffer
                yield stream.buffer.raw  # type: ignore[attr-defined]


def _is_reader(thing: object) -> bool:
    if type(thing) is io.TextIOWrapper:
        try:
            return type(thing.buffer) in (io.BufferedReader, io.BytesIO)
        except ValueError:
            return True
    return type(thing) in _READERS
