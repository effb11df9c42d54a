"""The first process inside the sandbox: starts programs, watches them, reports how they ended.

    judge  --(request, file descriptors)-->  runner  --clone-->  init  --fork-->  program
    judge  <--(outcome)--------------------  runner

The runner is trusted and never holds tests or expected answers: inputs and outputs run through
pipes between the judge and the program, which the runner only passes on. A Python program is a
fork of the runner, which has paid for the interpreter's start already; any other is executed.

Where namespaces may be made, every program gets process and IPC namespaces of its own, with an
`init` whose death kills all that is in them. Elsewhere seccomp keeps it from starting processes
and Landlock from writing files; at the last level, where nothing does, the runner is the
subreaper of whatever a program leaves behind, and kills it.

Requests and outcomes are JSON over a SOCK_SEQPACKET socket, descriptors beside them.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from types import CodeType
from typing import Any

from . import (
    beside,
    checker,
    ending,
    harness,
    kernel,
    landlock,
    layout,
    refusals,
    seccomp,
    serve,
    sibling_modules,
)
from .code_cache import CodeCache
from .process import ProcessTree, become_program

CONTROL_FD = 3
_TICK_MS = 10
_MAX_REQUEST_BYTES = 65536
_MAX_FDS = 128
_THREAD_STACK_BYTES = 8 << 20
_code_cache = CodeCache()  # here, so that no process that leaves `main` takes it apart


def main(argument: str) -> Callable[[], None]:
    """Serve the judge until it hangs up.

    Args:
        argument: the container's setting as JSON: `level`, `nested`, `read`, `scratch`,
            `scratch_bytes`.

    Returns:
        Only in the process of a Python program: what runs it.
    """
    setting: dict[str, Any] = json.loads(argument)
    control = socket.socket(fileno=CONTROL_FD)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # no program may look into the runner
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    kernel.set_thread_stack(_THREAD_STACK_BYTES)
    layout.enclose(setting)
    kernel.bound_capabilities()  # for every program, which drops those that we need, too
    bare = not setting["nested"] and setting["level"] != "rlimits"
    ruleset = _ruleset(setting) if bare else None
    _warm_up()
    control.send(b"ready")
    while True:
        message, fds, _, _ = socket.recv_fds(control, _MAX_REQUEST_BYTES, _MAX_FDS)
        if not message:
            os._exit(0)
        request = json.loads(message)
        code = _Run(setting, control, ruleset, request, fds).go()
        if code is not None:
            return _role(request["role"], code)


def _role(role: str, code: list[CodeType]) -> Callable[[], None]:
    """What a Python process is there for."""
    if role == "serve":
        return partial(ending.run, serve.main, code, prelude=False)
    if role == "serve_with_prelude":
        return partial(ending.run, serve.main, code, prelude=True)
    if role == "beside":
        return partial(ending.run, beside.main, code)
    if role == "harness":
        return lambda: harness.main(code)
    sibling_modules.install(code[1:])
    if role == "checker":
        return lambda: checker.main(code)
    return partial(ending.run, exec, code[0], sys.modules["__main__"].__dict__)


def _warm_up() -> None:
    """Import and make what most programs need, once instead of in every one of them."""
    import bisect  # noqa: F401
    import collections  # noqa: F401
    import functools  # noqa: F401
    import gc
    import heapq  # noqa: F401
    import itertools  # noqa: F401
    import math  # noqa: F401
    import random  # noqa: F401  (seeds itself anew in every fork)
    import re  # noqa: F401
    import string  # noqa: F401
    import typing  # noqa: F401

    if seccomp.supported():
        seccomp.prepare()
    if hasattr(gc, "freeze"):
        gc.freeze()


def _ruleset(setting: dict[str, Any], scratch: str = "") -> int:
    devices = ("null", "zero", "full", "random", "urandom")
    rules = [(path, landlock.READ) for path in setting["read"]]
    rules += [(f"/dev/{name}", landlock.READ | landlock.WRITE) for name in devices]
    return landlock.create([*rules, (scratch, landlock.WRITE)] if scratch else rules)


class _Run:
    """One program from its start to the death of its last process."""

    def __init__(
        self,
        setting: dict[str, Any],
        control: socket.socket,
        ruleset: int | None,
        request: dict[str, Any],
        fds: list[int],
    ) -> None:
        self._setting, self._request, self._fds = setting, request, fds
        self._control, self._ruleset = control, ruleset
        self._nested = bool(setting["nested"])
        self._is_test = request["role"] == "harness"
        # A tool, as a compiler, may start processes everywhere.
        bare = not self._nested and ruleset is not None and not request.get("scratch")
        self._hears = bare and seccomp.supported()
        self._code: CodeType | None = None

    def go(self) -> list[CodeType] | None:
        if self._is_test:
            self._code = _code_cache.code(self._fds[3], self._request["sources"][0])
        ours, theirs = socket.socketpair()
        started = time.monotonic()
        top = kernel.clone(kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC) if self._nested else os.fork()
        if top == 0:
            # Test code is its own init; programs would notice, by signals that do nothing.
            program = os.fork() if self._nested and not self._is_test else 0
            if program == 0:
                ours.close()  # while its number is its own: the program's files get others' numbers
                return self._become_program(theirs.detach())
            self._be_init(program, theirs.fileno())
        theirs.close()
        for fd in self._fds:
            os.close(fd)
        heard = refusals.Refusals(ours if self._hears else None)
        outcome = self._watch(top, started, heard)
        heard.close()
        with ours, ours.makefile("rb") as report:
            for line in report.read().splitlines():
                outcome.update(json.loads(line))
        outcome["note"] = self._collect()
        layout.clean(self._setting)
        self._control.send(json.dumps(outcome).encode())
        return None

    def _be_init(self, program: int, report_w: int) -> None:
        """Reap everything, report the program's end, and take the rest along by exiting."""
        for fd in self._fds:
            os.close(fd)
        pid = 0
        while pid != program:
            pid, status, usage = os.wait4(-1, 0)
        own = {
            "status": status,
            "peak_bytes": usage.ru_maxrss * 1024,
            "ended_at": time.monotonic(),
        }
        os.write(report_w, json.dumps(own).encode() + b"\n")
        os._exit(0)

    def _become_program(self, report_w: int) -> list[CodeType] | None:
        ruleset, filters = self._ruleset, []
        scratch = self._request.get("scratch")
        if ruleset is not None and scratch:
            ruleset = _ruleset(self._setting, scratch)
        if seccomp.supported() and self._nested:
            filters = [seccomp.namespaced_filter()]
        elif seccomp.supported() and ruleset is not None:
            filters = [seccomp.bare_filter(os.getpid(), tools=bool(scratch))]
        if self._hears:
            filters.insert(0, seccomp.bare_filter(os.getpid(), told=True))
        return become_program(self._request, self._fds, report_w, ruleset, filters, self._code)

    def _watch(self, top: int, started: float, heard: refusals.Refusals) -> dict[str, Any]:
        """Wait for the end of `top`; end it where a limit is passed or the judge says so."""
        limits = self._request["limits"]
        tree = ProcessTree(top if self._nested else os.getpid())
        end = os.pidfd_open(top)
        poll = select.poll()
        poll.register(end, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        heard.register(poll)
        killed = ""
        while not killed:
            ready = dict(poll.poll(_TICK_MS))
            if end in ready:
                break
            heard.answer(poll, ready)
            if self._control.fileno() in ready:
                if not self._control.recv(_MAX_REQUEST_BYTES):
                    self._kill(top)
                    os._exit(0)
                killed = "asked"
            else:
                wall_s = time.monotonic() - started
                killed = tree.passed(limits) or ("wall" if wall_s > limits["wall_s"] else "")
        os.close(end)
        ended_at = time.monotonic()
        self._kill(top)
        _, status, usage = os.wait4(top, 0)
        left = 0 if self._nested else tree.sweep()
        return {
            "status": status,
            "killed": killed,
            "wall_s": time.monotonic() - started,
            "cpu_s": max(usage.ru_utime + usage.ru_stime, tree.seen_cpu_s),
            "peak_bytes": usage.ru_maxrss * 1024,
            "seen_bytes": tree.seen_bytes,
            "ended_at": ended_at,
            "left": left,
            "not_allowed": heard.noted,
        }

    def _kill(self, top: int) -> None:
        os.kill(top, signal.SIGKILL)  # of an init: the kernel kills all of its namespace

    def _collect(self) -> str:
        """The start of the file that the program was asked to leave a note in."""
        name = self._request.get("collect")
        if not name:
            return ""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return ""
        with os.fdopen(fd, "rb") as note:
            return note.read(2000).decode(errors="replace")
