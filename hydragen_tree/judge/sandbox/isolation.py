"""Which isolation is really there: the levels are tried, strongest first, and probed."""

from dataclasses import dataclass
from typing import Any, cast

from hydragen_tree.errors import InputError, Setting
from hydragen_tree.judge.sandbox.box import Box, BoxError
from hydragen_tree.judge.sandbox.interpreter import Interpreter, find_interpreter
from hydragen_tree.judge.sandbox.levels import LEVELS, Container, LevelName, build
from hydragen_tree.judge.sandbox.probes import Attempt, make_attempts

UNPROTECTED: LevelName = "rlimits"


@dataclass(frozen=True, slots=True)
class Isolation:
    """The isolation in force.

    Args:
        level: bubblewrap, unshare, landlock or rlimits.
        container: how its sandboxes are started.
        attempts: what was tried against it, and what happened.
        memory: what limits a program's memory: its `cgroup`, or the runner that watches it.
        passed_over: why each stronger level is not in force.
    """

    level: LevelName
    container: Container
    attempts: tuple[Attempt, ...]
    memory: str
    passed_over: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether every attempt to get out was stopped."""
        return all(attempt.stopped for attempt in self.attempts)

    def to_json(self) -> dict[str, Any]:
        """As it stands in a summary."""
        return {
            "level": self.level,
            "processes": "namespaces" if self.container.nested else "one",
            "memory": self.memory,
            "attempts": {a.name: {"stopped": a.stopped, "detail": a.detail} for a in self.attempts},
            "passed_over": list(self.passed_over),
        }

    def __str__(self) -> str:
        stopped = sum(attempt.stopped for attempt in self.attempts)
        line = f"isolation: {self.level}; {stopped} of {len(self.attempts)} ways out are closed"
        if not self.holds:
            open_ = ", ".join(a.name for a in self.attempts if not a.stopped)
            line += f"; OPEN: {open_}"
        return line


def probe(sandbox: str = "auto", python: str | None = None) -> Isolation:
    """Find the isolation that a `Judge` with the same arguments would have.

    Args:
        sandbox: a level, or `auto` for the strongest that holds.
        python: the Python that runs the programs.

    Raises:
        InputError: the level does not work here, or `auto` finds none.
    """
    return find_isolation(sandbox, find_interpreter(python))


def find_isolation(sandbox: str, interpreter: Interpreter) -> Isolation:
    """`probe` for an interpreter already found."""
    if sandbox not in (*LEVELS, "auto"):
        raise InputError(f"sandbox {sandbox!r}: expected auto, {', '.join(LEVELS)}")
    wanted = (
        [level for level in LEVELS if level != UNPROTECTED]
        if sandbox == "auto"
        else [cast(LevelName, sandbox)]
    )
    reasons: list[str] = []
    for level in wanted:
        # Where a system lets bubblewrap make namespaces but its programs not, the second form
        # goes without: its programs may start no processes.
        for nested in (True, False) if level == "bubblewrap" else (True,):
            container = build(level, interpreter, nested=nested)
            if container is None:
                reasons.append(f"{level}: not installed")
                break
            try:
                isolation = _probe_level(container, tuple(reasons))
            except BoxError as error:
                reasons.append(str(error))
                continue
            if isolation.holds or level == UNPROTECTED:
                return isolation
            reasons.append(f"{level}: {isolation}")
    raise InputError(
        f"no sandbox works here ({'; '.join(reasons)}): install bubblewrap, or allow user "
        "namespaces or Landlock; ",
        Setting(f'sandbox="{UNPROTECTED}"'),
        " judges without protection, for programs you trust",
    )


def _probe_level(container: Container, passed_over: tuple[str, ...]) -> Isolation:
    box = Box(container)
    try:
        attempts = make_attempts(box)
        memory = "cgroup" if box.in_group else "watched"
    finally:
        box.dispose()
    return Isolation(container.level, container, tuple(attempts), memory, passed_over)
