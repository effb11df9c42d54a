"""Runs programs on tests as plain subprocesses with limits. For programs of the tiny model only:
this is no sandbox; the judge has one."""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

MEMORY_BYTES = 512 << 20
LIMITED = f"""import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}))
resource.setrlimit(resource.RLIMIT_CPU, (3, 3))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
exec(compile(sys.argv[1], "program", "exec"), {{"__name__": "__main__"}})
"""

Test = tuple[str, str]


def solves(program: str, tests: Iterable[Test], time_s: float = 2.0) -> bool:
    """Whether the program's output agrees with every test, token by token.

    Args:
        program: Python source text.
        tests: (input, expected output) pairs; the first failure ends the run.
        time_s: wall-clock limit of one test.
    """
    command = [sys.executable, "-I", "-S", "-c", LIMITED, program]
    for given, expected in tests:
        try:
            run = subprocess.run(
                command,
                input=given,
                capture_output=True,
                text=True,
                timeout=time_s,
                errors="replace",
            )
        except (subprocess.TimeoutExpired, ValueError, OSError):
            return False
        if run.returncode != 0 or run.stdout.split() != expected.split():
            return False
    return True


def solve_all(programs: Sequence[tuple[str, Sequence[Test]]], workers: int) -> list[bool]:
    """`solves` for every pair of program and tests, several at a time."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda pair: solves(*pair), programs))
