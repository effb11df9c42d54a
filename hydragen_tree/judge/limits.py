"""The limits of a run, and what is wrong with how it ended."""

import json
import signal

from hydragen_tree.judge.sandbox.request import Outcome, RunLimits
from hydragen_tree.judge.verdicts import Status
from hydragen_tree.problem.types import Problem, Test

_SLACK = 1.2  # of the time limit, before a run is ended
_WALL = 3.0  # elapsed seconds for each second of processor time ...
_WALL_EXTRA_S = 2.0  # ... and for waiting
_BUSY = 0.1  # below this part of its time in use, a program waits; it is not slowed down by others
_SILENT_S = 1.0  # without a word, a program in a conversation has stopped talking
_OUT_OF_MEMORY = (b"MemoryError", b"std::bad_alloc", b"Cannot allocate memory")

Judged = tuple[Outcome, Status, str]


class LimitsByTest:
    """What a run of a problem's program may use before it is ended, worked out once a test.

    Args:
        problem: the problem.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._largest_output = max((_size(test.output) for test in problem.tests), default=0)
        self._known: dict[int, RunLimits] = {}

    def of(self, index: int) -> RunLimits:
        """The limits on a test, by its index."""
        if index not in self._known:  # two threads may both work it out, to the same end
            self._known[index] = self._work_out(self._problem.tests[index])
        return self._known[index]

    def _work_out(self, test: Test) -> RunLimits:
        limits, largest = self._problem.limits, self._largest_output
        if test.call is not None:  # its result comes as JSON, where a tuple is longer than a list
            largest = 2 * len(json.dumps(test.expected))
        return RunLimits(
            cpu_s=_SLACK * limits.time_s + 0.05,
            wall_s=_WALL * limits.time_s + _WALL_EXTRA_S,
            memory_bytes=limits.memory_mib << 20,
            output_bytes=max(limits.output_mib << 20, 2 * largest),
        )


def _size(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def find_failure(
    outcome: Outcome, problem: Problem, *, ignore_exit: bool = False
) -> tuple[Status, str] | None:
    """What is wrong with a run, whatever it wrote; None if nothing is.

    Args:
        outcome: the run.
        problem: whose limits hold.
        ignore_exit: how the program ended does not matter.
    """
    limits, used = problem.limits, outcome.cpu_s
    if outcome.refused:
        return "CE", outcome.refused
    if outcome.killed == "output" or outcome.signal == signal.SIGXFSZ:
        return "OLE", f"wrote more than {limits.output_mib} MiB"
    if outcome.killed == "memory" or outcome.memory_bytes > limits.memory_mib << 20:
        return "MLE", f"used more than {limits.memory_mib} MiB"
    if outcome.killed == "cpu" or used > limits.time_s or outcome.signal == signal.SIGXCPU:
        return "TLE", f"used {used:.2f} s of processor time, allowed {limits.time_s:g} s"
    if outcome.killed == "wall":
        return "TLE", f"took {outcome.wall_s:.1f} s, of which {used:.2f} s of processor time"
    if outcome.killed:
        return "RE", "started too many processes"
    if ignore_exit or outcome.exit_status == 0:
        return None
    if any(sign in outcome.stderr for sign in _OUT_OF_MEMORY):
        return "MLE", "asked for more memory than there is"
    if outcome.signal is not None:
        return "RE", f"ended by {_signal_name(outcome.signal)}"
    last = outcome.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
    return "RE", last[:200] or f"exit status {outcome.exit_status}"


def is_borderline(outcome: Outcome, time_s: float) -> bool:
    """Whether a quiet machine could have made a difference.

    Args:
        outcome: the run.
        time_s: the problem's time limit.
    """
    if outcome.killed == "wall":
        if outcome.ended_at - outcome.talked_at < _SILENT_S and outcome.cpu_s <= time_s:
            return True  # in the midst of a conversation, whose elapsed time is not all its own
        return _BUSY * outcome.wall_s < outcome.cpu_s <= time_s
    return not outcome.killed and time_s < outcome.cpu_s


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
