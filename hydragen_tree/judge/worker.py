"""One worker of the judge: runs a program on the tests of its problem, until one fails.

The limits of a run lie a little above the problem's, so that a program that misses its time
narrowly ends by itself; it is then measured again alone, and that time counts.
"""

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace

from hydragen_tree.judge.checker_programs import CheckerError, CheckerProgram, image_of
from hydragen_tree.judge.code_tests import run_code_test
from hydragen_tree.judge.comparison import compare_text, equal_values
from hydragen_tree.judge.languages import CompileError, Language, compile_program
from hydragen_tree.judge.limits import Judged, LimitsByTest, find_failure, is_borderline
from hydragen_tree.judge.program import Program
from hydragen_tree.judge.sandbox.box import Box, BoxError
from hydragen_tree.judge.sandbox.guest import wire
from hydragen_tree.judge.sandbox.interaction import interact
from hydragen_tree.judge.sandbox.levels import Container
from hydragen_tree.judge.sandbox.request import RunLimits
from hydragen_tree.judge.verdicts import Verdict, verdict_of
from hydragen_tree.problem.checkers import ProgramChecker
from hydragen_tree.problem.types import Problem, Test

_PATIENCE = 3.0  # times as much elapsed time for a run that is repeated alone
_INTERACTOR = RunLimits(cpu_s=60, wall_s=90, memory_bytes=4 << 30)
_ATTEMPTS = 2
# How Python tells of what a sandbox without namespaces for each program allows to none.
_NOT_ALLOWED = {
    "starts processes": re.compile(
        rb"BlockingIOError: \[Errno 11\].*\s*\Z"
        rb"|SemLock\((?s:.*)PermissionError: \[Errno 13\].*\s*\Z"
    ),
    "opens files": re.compile(
        rb"(?:PermissionError: \[Errno 13\] Permission denied: b?'.*'"
        rb"|No usable temporary directory found.*|unable to open database file)\s*\Z"
    ),
    "makes system calls": re.compile(
        rb"PermissionError: \[Errno 1\] Operation not permitted.*\s*\Z"
    ),
}


class RunLock:
    """Runs share the machine; a measurement that must be exact has it alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._waiting = 0

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Hold it beside other runs; waits while a run that wants to be alone is waiting."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting == 0)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold it alone: waits until no other run holds it."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: self._running == 0)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._waiting -= 1
                self._changed.notify_all()


class Worker:
    """Judges one program at a time, in a box of its own.

    Args:
        container: the sandbox.
        run_lock: shared by all workers of a judge.
        stop: when set, a program's further tests are not run any more.
    """

    def __init__(self, container: Container, run_lock: RunLock, stop: threading.Event) -> None:
        self._stop = stop
        self.box = Box(container)
        self._partner = Box(container)
        self._run_lock = run_lock

    def close(self) -> None:
        """End both sandboxes."""
        self.box.dispose()
        self._partner.dispose()

    def judge(
        self,
        problem: Problem,
        limits: LimitsByTest,
        checker: CheckerProgram | None,
        code: str,
        language: Language,
    ) -> Verdict:
        """Judge a program.

        Args:
            problem: the problem.
            limits: of its tests.
            checker: its checker, if that is a program.
            code: the program's source.
            language: its language.
        """
        program = None
        try:
            program = self._ready(code, language)
            return self._run_tests(problem, limits, checker, program)
        except CompileError as error:
            return Verdict("CE", message=str(error)[:400])
        except (BoxError, CheckerError) as error:
            return Verdict("IE", message=str(error)[:400])
        finally:
            if program is not None:
                program.close()

    def _ready(self, code: str, language: Language) -> Program:
        try:
            source = code.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:  # half a character, which a model can produce
            raise CompileError(f"no UTF-8: character {error.start + 1}: {error.reason}") from None
        if not language.compiler:
            return Program(code)
        name = f"solution{language.suffixes[0]}"
        return Program(code, image_of(compile_program(self.box, language, {name: source})))

    def _run_tests(
        self,
        problem: Problem,
        limits: LimitsByTest,
        checker: CheckerProgram | None,
        program: Program,
    ) -> Verdict:
        time_s, memory_bytes, rerun = 0.0, 0, False
        verdict = Verdict("AC")
        for index in range(len(problem.tests)):
            if self._stop.is_set():
                return Verdict("IE", message="interrupted")
            verdict = self._judge_test(problem, limits.of(index), checker, program, index)
            time_s = max(time_s, verdict.time_s)
            memory_bytes = max(memory_bytes, verdict.memory_bytes)
            rerun = rerun or verdict.rerun
            if not verdict.accepted:
                break
        if verdict.accepted:
            verdict = replace(verdict, stdout_excerpt="", stderr_excerpt="")
        return replace(verdict, time_s=time_s, memory_bytes=memory_bytes, rerun=rerun)

    def _judge_test(
        self,
        problem: Problem,
        limits: RunLimits,
        checker: CheckerProgram | None,
        program: Program,
        index: int,
    ) -> Verdict:
        test = problem.tests[index]

        def run(limits: RunLimits) -> Judged:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    judged = self._run(problem, checker, program, test, limits)
                    return self._unless_not_allowed(judged)
                except BoxError:
                    if attempt == _ATTEMPTS:
                        raise
            raise AssertionError

        with self._run_lock.shared():
            outcome, status, message = run(limits)
        rerun = is_borderline(outcome, problem.limits.time_s)
        if rerun:
            patient = replace(limits, wall_s=_PATIENCE * limits.wall_s)
            with self._run_lock.exclusive():
                outcome, status, message = run(patient)
        verdict = verdict_of(outcome, status, message, test=index)
        return replace(verdict, rerun=rerun)

    def _run(
        self,
        problem: Problem,
        checker: CheckerProgram | None,
        program: Program,
        test: Test,
        limits: RunLimits,
    ) -> Judged:
        if test.code is not None:
            boxes = (self.box, self._partner)
            return run_code_test(problem, program, test.code, limits, boxes)
        if test.call is not None:
            return self._run_call(problem, program, test, limits)
        if isinstance(problem.checker, ProgramChecker) and problem.checker.interactive:
            assert checker is not None
            return self._run_interactive(problem, checker, program, test, limits)
        outcome = self.box.run(program.request(limits), test.input.encode())
        failure = find_failure(outcome, problem)
        if failure is not None:
            return outcome, *failure
        if checker is not None:
            wrong = checker.check(self.box, test, outcome.stdout)
        else:
            assert not isinstance(problem.checker, ProgramChecker)
            wrong = compare_text(problem.checker, outcome.stdout, test.output.encode())
        return (outcome, "AC", "") if wrong is None else (outcome, "WA", wrong)

    def _unless_not_allowed(self, judged: Judged) -> Judged:
        """A verdict as it stands, unless another level of isolation could have given another."""
        outcome, status, _ = judged
        container = self.box.container
        if container.nested or container.level == "rlimits" or status not in ("RE", "WA"):
            return judged
        said = (what for what, sign in _NOT_ALLOWED.items() if sign.search(outcome.stderr))
        if what := outcome.not_allowed or next(said, ""):
            return outcome, "IE", f"it {what}, which {container.level} allows to none"
        return judged

    def _run_call(
        self, problem: Problem, program: Program, test: Test, limits: RunLimits
    ) -> Judged:
        """A call crosses as a line of JSON, and so does what it returns."""
        assert test.call is not None
        args = [wire.encode(argument, _refuse_object) for argument in test.call]
        call = json.dumps({"target": problem.entry_point, "args": args})
        request = program.request(limits, role="serve_with_prelude")
        outcome = self.box.run(request, call.encode() + b"\n")
        failure = find_failure(outcome, problem)
        if failure is not None:
            return outcome, *failure
        try:
            reply = json.loads(outcome.stdout)
            if raised := reply.get("raised"):
                return outcome, "RE", f"{raised}: {reply.get('text', '')}"[:400]
            value = wire.decode(reply["ok"], _refuse_reference)
            right = equal_values(value, test.expected)
            if "also_expected" in test.model_fields_set:
                right = right or equal_values(value, test.also_expected)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as why:
            if not outcome.stdout:
                return outcome, "RE", "the program ended before it answered"
            return outcome, "WA", f"the function returned no plain value: {why}"[:400]
        if right:
            return outcome, "AC", ""
        return outcome, "WA", f"expected {_short(test.expected)}, got {_short(value)}"

    def _run_interactive(
        self,
        problem: Problem,
        checker: CheckerProgram,
        program: Program,
        test: Test,
        limits: RunLimits,
    ) -> Judged:
        interactor = checker.interactor(test, replace(_INTERACTOR, wall_s=limits.wall_s + 10))
        outcome, asked = interact(
            self.box, program.request(limits), self._partner, interactor, in_order=True
        )
        # Who ends first is in the right: after a rejection a program may die of a closed pipe, or
        # wait for an answer until its time is up. A program that hangs up has begun to end: what
        # becomes of it counts first. Source that is no program is CE all the same.
        left_at = min(outcome.ended_at, outcome.hung_up_at)
        if asked.exit_status == 43 and asked.ended_at <= left_at and not outcome.refused:
            return outcome, "WA", checker.interpret(asked) or ""
        failure = find_failure(outcome, problem)
        if failure is not None:
            return outcome, *failure
        wrong = checker.interpret(asked)
        return (outcome, "AC", "") if wrong is None else (outcome, "WA", wrong)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _refuse_object(value: object) -> int:
    raise TypeError(f"a test's argument of type {type(value).__name__} is not plain data")


def _refuse_reference(reference: dict[str, object]) -> object:
    raise ValueError(f"an object of type {reference.get('type')}")
