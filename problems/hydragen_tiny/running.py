"""Runs programs on tests as plain subprocesses with limits. For programs of the tiny model only:
this is no sandbox; the judge has one."""

import marshal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

MEMORY_BYTES = 512 << 20
CPU_S = 2
WALL_S = 10.0
SOLVED = b"solved"

# One interpreter for all tests of a program: starting it takes longer than most programs run.
HARNESS = f"""import io, marshal, resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}))
resource.setrlimit(resource.RLIMIT_CPU, ({CPU_S}, {CPU_S}))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
program, tests = marshal.load(sys.stdin.buffer)
code = compile(program, "program", "exec")
verdict = sys.stdout
for given, expected in tests:
    sys.stdin = io.TextIOWrapper(io.BytesIO(given.encode()))
    sys.stdout = io.StringIO()
    try:
        exec(code, {{"__name__": "__main__"}})
    except SystemExit as leaving:
        if leaving.code:
            raise
    if sys.stdout.getvalue().split() != expected.split():
        sys.exit(1)
verdict.write("solved")
"""

Test = tuple[str, str]


def solves(program: str, tests: Iterable[Test]) -> bool:
    """Whether the program's output agrees with every test, token by token.

    Args:
        program: Python source text.
        tests: (input, expected output) pairs; the first failure ends the run. All of them
            together may take CPU_S.
    """
    try:
        run = subprocess.run(
            [sys.executable, "-I", "-S", "-c", HARNESS],
            input=marshal.dumps((program, list(tests))),
            capture_output=True,
            timeout=WALL_S,
        )
    except (subprocess.TimeoutExpired, OSError):
        return False
    return run.returncode == 0 and run.stdout == SOLVED


def solve_all(programs: Sequence[tuple[str, Sequence[Test]]], workers: int) -> list[bool]:
    """`solves` for every pair of program and tests, several at a time."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda pair: solves(*pair), programs))
