"""Tests that are code: apart from the program where only plain values pass, else beside it.

Apart is the safe way: the program's process never holds what a test expects, and what it returns
is rebuilt from plain parts. It is the way of tests that compare results with literals. Any other
could tell an object from a copy, and runs in the program's process, inside the sandbox as ever.
What that gives up: a program could look at the test or change it, so that a verdict holds for
programs that do not try to cheat. Ending early is no way to pass: the test's end is told with a
word that the program was never given.
"""

import json
import secrets
from dataclasses import replace

from hydragen_tree.judge.checker_programs import CheckerError
from hydragen_tree.judge.limits import Judged, find_failure
from hydragen_tree.judge.program import Program
from hydragen_tree.judge.sandbox.box import Box
from hydragen_tree.judge.sandbox.guest import harness
from hydragen_tree.judge.sandbox.interaction import interact
from hydragen_tree.judge.sandbox.request import Outcome, Request, RunLimits
from hydragen_tree.judge.shared_objects import shares_objects
from hydragen_tree.judge.verdicts import Status
from hydragen_tree.problem.types import Problem

_HARNESS = RunLimits(cpu_s=60, wall_s=90, memory_bytes=4 << 30)


def run_code_test(
    problem: Problem,
    program: Program,
    code: str,
    limits: RunLimits,
    boxes: tuple[Box, Box],
) -> Judged:
    """Run test code on a program.

    Args:
        problem: whose limits hold.
        program: the program.
        code: the test.
        limits: of the run.
        boxes: the program's, and the test's where it runs apart.
    """
    if shares_objects(code):
        return _run_beside(problem, program, code, limits, boxes[0])
    return _run_apart(problem, program, code, limits, boxes)


def _run_apart(
    problem: Problem, program: Program, code: str, limits: RunLimits, boxes: tuple[Box, Box]
) -> Judged:
    """The test runs in a process of its own, and asks the program's."""
    limits = replace(limits, wall_s=limits.wall_s + _HARNESS.wall_s)
    tests = Request(_HARNESS, argv=["tests.py"], sources=[("tests.py", code)], role="harness")
    outcome, asked = interact(boxes[0], program.request(limits, "serve"), boxes[1], tests)
    said = asked.stderr.decode("utf-8", "replace").strip()
    # A program that was ended, or ended itself, leaves the test without an answer.
    failure = find_failure(outcome, problem, ignore_exit=asked.exit_status != harness.GONE)
    if failure is not None:
        return outcome, *failure
    if asked.refused or asked.killed:
        raise CheckerError(f"test code: {asked.refused or 'passed its ' + asked.killed}")
    return _judged(outcome, asked.exit_status, said)


def _run_beside(
    problem: Problem, program: Program, code: str, limits: RunLimits, box: Box
) -> Judged:
    """The test runs in the program's process, once the program is loaded."""
    word = secrets.token_hex(16)
    request = program.request(limits, "beside", ("tests.py", code))
    outcome = box.run(request, word.encode() + b"\n")
    lines = outcome.stdout.decode("utf-8", "replace").splitlines()
    told = next((line.removeprefix(word) for line in lines if line.startswith(word)), "")
    failure = find_failure(outcome, problem, ignore_exit=bool(told))
    if failure is not None:
        return outcome, *failure
    if not told:
        return outcome, "RE", "the program ended before the test did"
    status, said = json.loads(told)
    return _judged(outcome, status, said)


def _judged(outcome: Outcome, exit_status: int | None, said: str) -> Judged:
    """What the test found, from the status that it ended with."""
    words: dict[int | None, tuple[Status, str]] = {
        harness.ACCEPTED: ("AC", ""),
        harness.WRONG: ("WA", said),
        harness.RAISED: ("RE", said),
        harness.GONE: ("RE", said),
        harness.REFUSED: ("IE", said),
    }
    if exit_status not in words:
        raise CheckerError(f"test code ended with {exit_status}: {said[-200:]}")
    status, message = words[exit_status]
    return outcome, status, message[:400]
