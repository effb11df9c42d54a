"""Function-style tests: calls, and test code."""

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from hydragen_tree.judge import Judge, Verdict
from hydragen_tree.judge.sandbox.guest.code_cache import CodeCache
from hydragen_tree.problem.formats.evalplus import evalplus_tests
from hydragen_tree.problem.types import Limits, Problem, Test


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(workers=1, cache=False) as judge:
        yield judge


def calling(name: str, *tests: tuple[list[Any], Any]) -> Problem:
    return Problem(
        id="p",
        statement="s",
        entry_point=name,
        tests=tuple(Test(call=tuple(call), expected=expected) for call, expected in tests),
        limits=Limits(time_s=1),
    )


def coded(code: str, name: str = "f", **settings: Any) -> Problem:
    limits = Limits(time_s=settings.pop("time_s", 1.0))
    tests = (Test(code=code),)
    return Problem(id="p", statement="s", entry_point=name, tests=tests, limits=limits, **settings)


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        ("def f(a, k): return sorted(a)[k]", "AC", ""),
        ("class Solution:\n    def f(self, a: List[int], k: int) -> int:\n"
         "        return sorted(a)[k]", "AC", ""),
        ("from typing import *\nf = lambda a, k: sorted(a)[k]", "AC", ""),
        ("import sys\nprint('noise')\ndef f(a, k):\n    print(a, file=sys.stdout)\n"
         "    return sorted(a)[k]\nif __name__ == '__main__':\n    f(input())", "AC", ""),
        ("def f(a, k): return heapq.nsmallest(k + 1, a)[-1]", "AC", ""),
        ("def f(a, k): return a[k]", "WA", "expected 1, got 3"),
        ("def f(a, k): return None", "WA", "got None"),
        ("def f(a, k): return '1'", "WA", "got '1'"),
        ("def f(a, k): return object()", "WA", "object"),
        ("def f(a): return 1", "RE", "TypeError"),
        ("def g(a, k): return 1", "RE", "NameError"),
        ("def f(a, k): raise ValueError('no')", "RE", "ValueError: no"),
        ("def f(a, k): exit()", "RE", "SystemExit"),
        ("import os\ndef f(a, k): os._exit(0)", "RE", "ended before"),
        ("import os\nos._exit(0)", "RE", "ended before"),
        ("1/0", "RE", "ZeroDivisionError"),
        ("def f(a, k): f(a, k)", "RE", "RecursionError"),
        ("def f(a, k): while True: pass", "CE", "SyntaxError"),
        ("def f(a, k):\n    while True: pass", "TLE", "processor time"),
        ("def f(a, k):\n    x = []\n    x.append(x)\n    return x", "RE", "RecursionError"),
        ("x = 'x' * (400 << 20)\ndef f(a, k): return 1", "MLE", ""),
        ("class Yes:\n    def __eq__(self, other): return True\ndef f(a, k): return Yes()",
         "WA", "Yes"),
        ("class Yes(int):\n    def __eq__(self, other): return True\ndef f(a, k): return Yes(7)",
         "WA", "got 7"),
    ],
)  # fmt: skip
def test_calls(judge: Judge, code: str, status: str, message: str) -> None:
    verdict = judge.judge(calling("f", ([[3, 1, 2], 0], 1), ([[5, 9], 1], 9)), code)
    assert verdict.status == status, verdict
    assert message in verdict.message


def test_call_results_in_json_are_lists_for_tuples(judge: Judge) -> None:
    problem = calling("f", ([[1, 2]], [[1, 2], [0.30000000000000004]]))
    assert judge.judge(problem, "def f(a): return (tuple(a), [0.1 + 0.2])").accepted


HUMAN_EVAL = """
METADATA = {"author": "nobody"}

def check(candidate):
    assert candidate([1, 2, 3]) == 6
    assert candidate([]) == 0
    assert abs(candidate([0.1, 0.2]) - 0.3) < 1e-9
    assert candidate((1,)) == 1, "a tuple"


check(total)
"""


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        ("def total(a): return sum(a)", "AC", ""),
        ("print('noise')\ndef total(a):\n    print('noise')\n    return sum(a)", "AC", ""),
        ("def total(a): return 6", "WA", "assertion"),
        ("def total(a): return sum(a) if a != (1,) else 2", "WA", "a tuple"),
        ("def total(a): return None", "WA", ""),
        ("def total(a): return sum(a) if a else 1 / 0", "RE", "ZeroDivisionError: division"),
        ("def other(a): return sum(a)", "RE", "name 'total' is not defined"),
        ("def total(a):\n    while True: pass", "TLE", ""),
        ("def total(a): return 'x' * (400 << 20)", "MLE", ""),
        ("def total(a: return", "CE", "SyntaxError"),
        ("1/0", "RE", "ZeroDivisionError"),
        # Ways that earn a pass from an executor that runs both in one process:
        ("import os\nos._exit(0)", "RE", ""),
        ("import sys\nsys.exit(0)", "RE", ""),
        ("import os\ndef total(a): os._exit(0)", "RE", ""),
        ("def total(a): exit(0)", "RE", "SystemExit"),
        ("class Yes:\n    __eq__ = __lt__ = __sub__ = __abs__ = lambda *all: True\n"
         "def total(a): return Yes()", "WA", ""),
        ("class Yes(float):\n    __eq__ = __lt__ = __sub__ = __abs__ = lambda *all: True\n"
         "def total(a): return Yes()", "WA", ""),
        ("import builtins\nbuiltins.AssertionError = Exception\nbuiltins.abs = lambda x: 0\n"
         "def total(a): return 5", "WA", ""),
        ("def check(candidate): pass\ndef total(a): return 5", "WA", ""),
        ("import os\nos.write(1, b'{}\\n' * 100)\ndef total(a): return 5", "WA", ""),
        ("import gc, sys\ndef total(a):\n    for o in gc.get_objects():\n"
         "        if isinstance(o, dict) and 'METADATA' in o: return 6\n    return -1", "WA", ""),
        ("import sys\ndef total(a):\n    f = sys._getframe()\n    while f:\n"
         "        if 'candidate' in f.f_locals: return 6\n        f = f.f_back\n    return -1",
         "WA", ""),
    ],
)  # fmt: skip
def test_human_eval_style(judge: Judge, code: str, status: str, message: str) -> None:
    verdict = judge.judge(coded(HUMAN_EVAL, "total"), code)
    assert verdict.status == status, verdict
    assert message in verdict.message


def check_code(judge: Judge, tests: str, program: str) -> Verdict:
    return judge.judge(coded(tests), program)


def test_helpers_of_the_program_are_at_hand(judge: Judge) -> None:
    """HumanEval's tests call functions that the prompt defines beside the one asked for."""
    program = "import math\nK = {'a': (1, 2)}\ndef encode(s): return s[::-1]\n"
    program += "def f(s): return s[::-1]"
    tests = (
        "assert f(encode('abc')) == 'abc'\nassert K['a'] == (1, 2)\n"
        "assert math.isclose(math.pi, 3.14159265, rel_tol=1e-6)"
    )
    assert check_code(judge, tests, program).accepted


def test_arguments_changed_in_place(judge: Judge) -> None:
    tests = (
        "a, b, d = [3, 1], {1}, {'x': 1}\nassert f(a, b, d) is None\n"
        "assert (a, b, d) == ([1, 3], {1, 2}, {'y': 2})"
    )
    program = "def f(a, b, d):\n    a.sort()\n    b.add(2)\n    d.clear()\n    d['y'] = 2"
    assert check_code(judge, tests, program).accepted


def test_exceptions_are_recognised(judge: Judge) -> None:
    tests = """
try:
    f(-1)
except ValueError as error:
    assert str(error) == "negative"
else:
    assert False, "nothing raised"
try:
    f(-2)
except KeyError:
    pass
try:
    f(-3)
except Exception as error:
    assert type(error).__name__ == "Own"
"""
    program = """
class Own(RuntimeError): pass
def f(n):
    if n == -1: raise ValueError("negative")
    if n == -2: raise KeyError("x")
    raise Own()
"""
    verdict = check_code(judge, tests, program)
    assert verdict.accepted, verdict
    silent = check_code(judge, tests, "def f(n): pass")
    assert (silent.status, silent.message) == ("WA", "nothing raised")


def test_objects_of_the_program(judge: Judge) -> None:
    """MBPP's tests make objects of the program's classes and hand them back."""
    tests = """
assert f([Pair(5, 24), Pair(15, 25)]) == 2
p = Pair(1, 2)
assert p.a == 1 and p.total() == 3
assert p != 3 and not p == Pair(1, 3)
assert apply(Pair, 1, 2).total() == apply(apply, p.total) == 3
assert f is not None and [type(x) for x in (Pair(1, 2).both(),)] == [tuple]
"""
    program = """
class Pair:
    def __init__(self, a, b): self.a, self.b = a, b
    def total(self): return self.a + self.b
    def both(self): return self.a, self.b
def f(pairs): return len([p for p in pairs if isinstance(p, Pair)])
def apply(function, *args): return function(*args)
"""
    verdict = check_code(judge, tests, program)
    assert verdict.accepted, verdict


def test_results_that_are_computed_as_they_are_read(judge: Judge) -> None:
    tests = "assert list(f(3)) == [0, 1, 2]\nassert sorted(f(2)) == [0, 1]"
    assert check_code(judge, tests, "def f(n):\n    yield from range(n)").accepted
    assert check_code(judge, tests, "def f(n): return range(n)").accepted
    assert check_code(judge, tests, "f = lambda n: map(int, range(n))").accepted
    endless = "import itertools\ndef f(n): return itertools.count()"
    assert check_code(judge, tests, endless).status in ("TLE", "MLE")


def test_state_of_the_program_lasts_through_a_test(judge: Judge) -> None:
    tests = "assert [f(), f(), f()] == [1, 2, 3]"
    assert check_code(
        judge, tests, "n = 0\ndef f():\n    global n\n    n += 1\n    return n"
    ).accepted


def test_the_time_of_the_test_is_not_the_programs(judge: Judge) -> None:
    reference = (
        "    import time\n    end = time.process_time() + 0.8\n"
        "    while time.process_time() < end: pass\n    return 1\n"
    )
    [test] = evalplus_tests(
        {"task_id": "HumanEval/1", "prompt": "def f():\n", "canonical_solution": reference,
         "entry_point": "f", "base_input": [[]]}
    )  # fmt: skip
    verdict = judge.judge(coded(test, time_s=0.5), "def f(): return 1")
    assert verdict.accepted, verdict
    assert verdict.time_s < 0.4


def test_what_a_test_expects_is_not_in_the_memory_of_the_next_program(judge: Judge) -> None:
    """The test's compiled code is kept for the next sample, and not where a program can see it."""
    halves = secrets.token_hex(12), secrets.token_hex(12)
    tests = f"assert f() == '{halves[0]}{halves[1]}'\n" * 500
    program = f"""
def f():
    first, second = {halves[0]!r}.encode(), {halves[1]!r}.encode()
    memory = open("/proc/self/mem", "rb", 0)
    for line in open("/proc/self/maps"):
        span, rights = line.split()[:2]
        start, end = (int(word, 16) for word in span.split("-"))
        if rights[0] == "r" and end < 1 << 47 and "[v" not in line:
            memory.seek(start)
            data = memory.read(end - start)
            if any(rest.startswith(second) for rest in data.split(first)[1:]):
                return (first + second).decode()
    raise LookupError("nowhere")
"""
    problem = coded(tests, time_s=5.0)
    for number in range(2):
        verdict = judge.judge(problem, f"{program}# {number}")
        assert verdict.status == "RE", verdict
        # at a level without namespaces a program may not even look
        assert verdict.message.startswith(("LookupError: nowhere", "PermissionError")), verdict


def test_tests_have_nothing_in_common(judge: Judge) -> None:
    """Code is kept, by its text; the process that ran it is not."""
    tests = (
        "import builtins, random\n"
        "assert not hasattr(builtins, 'mark'), 'an earlier test'\n"
        "builtins.mark = f\nassert f(random.random()) == {}"
    )
    one, two = coded(tests.format(1)), coded(tests.format(2))
    for number in range(3):
        assert judge.judge(one, f"def f(x): return 1  # {number}").accepted
        assert judge.judge(two, f"def f(x): return 1  # {number}").status == "WA"
    drawn = {
        judge.judge(two, f"def f(x): print(x)  # {number}").stderr_excerpt for number in range(2)
    }
    assert len(drawn) == 2


def test_processes_that_a_test_leaves_end_with_it(judge: Judge) -> None:
    if not judge.isolation.container.nested:
        pytest.skip("tests start no processes here")
    argument = f"60.{secrets.randbelow(10**12)}"
    tests = f"import subprocess\nsubprocess.Popen(['sleep', '{argument}'])\nassert f() == 1"
    assert check_code(judge, tests, "def f(): return 1").accepted
    end = time.monotonic() + 5
    while _runs(argument) and time.monotonic() < end:
        time.sleep(0.01)
    assert not _runs(argument)


def _runs(argument: str) -> bool:
    def holds(process: Path) -> bool:
        try:
            return argument.encode() in (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return False

    return any(map(holds, Path("/proc").glob("[0-9]*")))


def test_code_is_kept_up_to_a_size(tmp_path: Path) -> None:
    def code(text: str) -> CodeType | None:
        (tmp_path / "tests.py").write_text(text)
        with (tmp_path / "tests.py").open("rb") as file:
            return cache.code(file.fileno(), "tests.py")

    cache = CodeCache()
    assert code("no Python") is None
    first = code("x = 1")
    assert first is not None
    assert code("x = 2") is not first
    assert code("x = 1") is first
    for number in range(2):
        assert code(f"x = {number}  # {'x' * 600_000}") is not None
    assert code("x = 1") is not first


def test_broken_test_code_is_an_infrastructure_error(judge: Judge) -> None:
    assert check_code(judge, "this is no Python", "def f(): return 1").status == "IE"
