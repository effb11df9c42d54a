"""Programs behave in the judge as they do under `python program.py < input`, and get their due."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.judge import Judge, Verdict
from hydragen_tree.judge.languages import find_language
from hydragen_tree.judge.sandbox.box import Box
from hydragen_tree.judge.sandbox.interpreter import find_interpreter
from hydragen_tree.judge.sandbox.request import Request, RunLimits
from hydragen_tree.problem.types import Limits, Problem, Test


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(workers=2, cache=False) as judge:
        yield judge


@pytest.fixture(scope="module")
def box(judge: Judge) -> Iterator[Box]:
    box = Box(judge.isolation.container)
    yield box
    box.dispose()


def echo(
    given: str = "3\n1 2 3\n",
    output: str = "6\n",
    *,
    time_s: float = 1.0,
    memory_mib: int = 256,
    tests: int = 1,
) -> Problem:
    limits = Limits(time_s=time_s, memory_mib=memory_mib, output_mib=1)
    return Problem(
        id="sum",
        statement="Add.",
        tests=tuple(Test(input=given, output=output) for _ in range(tests)),
        limits=limits,
    )


FAITHFUL = {
    "input": "n = int(input())\nprint(sum(map(int, input().split())))",
    "stdin readline": "import sys\ninput = sys.stdin.readline\nn = int(input())\nprint(input())",
    "stdin read": "import sys\nprint(len(sys.stdin.read().split()))",
    "stdin lines": "import sys\nfor line in sys.stdin: print(repr(line))",
    "stdin buffer": "import sys\nb = sys.stdin.buffer\nprint(b.readline(), b.readline(), b.read())",
    "os.read": "import os\nprint(os.read(0, 4), os.read(0, 100), os.read(0, 1))",
    "open(0)": "print(open(0).read())",
    "open(0) in pieces": "n, *a = map(int, open(0).read().split())\nprint(n, a)",
    "/dev/stdin": "print(open('/dev/stdin').read())",
    "/dev/stdout": "open('/dev/stdout', 'w').write('x')",
    "stdout buffer": "import sys\nsys.stdout.buffer.write(b'6\\n')",
    "stdout fd": "import os\nos.write(1, b'6\\n')",
    "own writer": "import io\nout = io.TextIOWrapper(io.FileIO(1, 'w'))\nout.write('6')",
    "own stdout": "import io, sys\nsys.stdout = io.StringIO()\nprint(1)\n"
    "sys.__stdout__.write(sys.stdout.getvalue())",
    "write without newline": "print(6, end='')",
    "atexit": "import atexit, sys\natexit.register(lambda: sys.stdout.write('6\\n'))",
    "main guard": "if __name__ == '__main__':\n    print(6)",
    "exit()": "print(6)\nexit()",
    "sys.exit(0)": "import sys\nprint(6)\nsys.exit(0)",
    "sys.exit(text)": "import sys\nsys.exit('no')",
    "sys.exit(3)": "import sys\nprint(6)\nsys.exit(3)",
    "os._exit": "import os\nprint(6, flush=True)\nos._exit(0)",
    "raise": "print(6)\nraise ValueError('no')",
    "exception in thread": "import threading\n"
    "t = threading.Thread(target=lambda: 1 / 0)\nt.start(); t.join(); print(6)",
    "recursion": "import sys\nsys.setrecursionlimit(10**6)\n"
    "def f(n): return 0 if n == 0 else 1 + f(n - 1)\nprint(f(50000))",
    "recursion in a thread": "import sys, threading\nsys.setrecursionlimit(10**6)\n"
    "threading.stack_size(1 << 27)\n"
    "def f(n): return 0 if n == 0 else 1 + f(n - 1)\n"
    "t = threading.Thread(target=lambda: print(f(50000)))\nt.start()\nt.join()",
    "recursion error": "def f(): f()\nf()",
    "many threads": "import threading\nc = []\n"
    "ts = [threading.Thread(target=c.append, args=(i,)) for i in range(30)]\n"
    "[t.start() for t in ts]; [t.join() for t in ts]; print(len(c))",
    "dataclass, pickle": "import dataclasses, pickle\n"
    "@dataclasses.dataclass\nclass A:\n    x: int\n"
    "print(pickle.loads(pickle.dumps(A(6))), A.__module__)",
    "globals": "x = 6\ndef f(): return globals()['x']\nprint(f(), __name__, __builtins__.__name__)",
    "argv": "import sys\nprint(len(sys.argv))",
    "unicode": "print('\u00e9\u4e2d\U0001f600')\nprint(input())",
    "encodings": "import sys\nprint(sys.stdin.encoding, sys.stdout.encoding, sys.stdin.errors)",
    "set order": "print(list({'a', 'b', 'c', 'd'}))",
    "imports": "import numpy_is_not_here",
    "stderr": "import sys\nprint('to stderr', file=sys.stderr)\nprint(6)",
    "modules": "import json, decimal, fractions, statistics, hashlib, datetime\nprint(6)",
    "end of input": "input()\ninput()\ninput()",
    "asyncio": "import asyncio\nasync def f(): await asyncio.sleep(0)\nasyncio.run(f())\nprint(6)",
    "warning": "import warnings\nwarnings.warn('w')\nprint(6)",
}


@pytest.mark.parametrize("name", FAITHFUL)
def test_behaves_as_python_does(box: Box, tmp_path: Path, name: str) -> None:
    code = FAITHFUL[name]
    (tmp_path / "solution.py").write_text(code)
    given = "3\n1 2 3\n"
    wanted = subprocess.run(
        [find_interpreter().path, "-s", "solution.py"],
        input=given.encode(),
        capture_output=True,
        cwd=tmp_path,
        env={"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        check=False,
    )
    limits = RunLimits(cpu_s=5, wall_s=10, memory_bytes=512 << 20)
    got = box.run(Request(limits, sources=[("solution.py", code)]), given.encode())
    assert got.exit_status == wanted.returncode, got
    assert got.stdout == wanted.stdout
    if name != "warning":  # which shows the line of a file that is not there
        assert got.stderr.split(b"\n")[-2:] == wanted.stderr.split(b"\n")[-2:]


def test_big_input_and_output_go_through(box: Box) -> None:
    code = "import sys\nsys.stdout.write(sys.stdin.read())"
    given = b"0123456789abcde\n" * 200_000
    limits = RunLimits(cpu_s=5, wall_s=10, memory_bytes=512 << 20)
    got = box.run(Request(limits, sources=[("solution.py", code)]), given)
    assert got.succeeded
    assert got.stdout == given


def test_input_that_is_not_read_to_its_end(box: Box) -> None:
    limits = RunLimits(cpu_s=5, wall_s=10, memory_bytes=512 << 20)
    got = box.run(Request(limits, sources=[("solution.py", "print(input())")]), b"1\n" * 2**20)
    assert got.succeeded
    assert got.stdout == b"1\n"


STATUSES = {
    "AC": "print(6)",
    "WA": "print(7)",
    "RE": "print(6)\nraise ValueError('no')",
    "TLE": "while True: pass",
    "MLE": "x = b'x' * (300 << 20)\nprint(6)",
    "OLE": "print('6' * (5 << 20))",
    "CE": "print(6",
}


@pytest.mark.parametrize("status", STATUSES)
def test_every_verdict(judge: Judge, status: str) -> None:
    verdict = judge.judge(echo(time_s=0.3 if status == "TLE" else 2), STATUSES[status])
    assert verdict.status == status, verdict
    assert verdict.failed_test == (None if status in ("AC", "CE") else 0)
    assert (verdict.message == "") == (status == "AC")


@pytest.mark.parametrize("language", ["python", "c"])
def test_half_a_character_is_the_programs_fault(judge: Judge, language: str) -> None:
    verdict = judge.judge(echo(), "print('\ud800')", language)
    assert verdict.status == "CE"
    assert "character 8" in verdict.message


def test_exit_status_counts_though_the_answer_is_right(judge: Judge) -> None:
    verdict = judge.judge(echo(), "import sys\nprint(6)\nsys.exit(1)")
    assert (verdict.status, verdict.exit_status) == ("RE", 1)


@pytest.mark.parametrize(("number", "name"), [(11, "SIGSEGV"), (6, "SIGABRT"), (9, "SIGKILL")])
def test_signals_are_named(judge: Judge, number: int, name: str) -> None:
    verdict = judge.judge(echo(), f"import os\nos.kill(os.getpid(), {number})")
    assert (verdict.status, verdict.signal, verdict.exit_status) == ("RE", number, None)
    assert name in verdict.message


def test_excerpts_and_figures(judge: Judge) -> None:
    code = "import sys\nx = b'x' * (60 << 20)\nprint('out')\nsys.exit('why')"
    verdict = judge.judge(echo(), code)
    assert verdict.stdout_excerpt == "out\n"
    assert verdict.stderr_excerpt == "why\n"
    assert verdict.message == "why"
    assert 60 << 20 < verdict.memory_bytes < 120 << 20
    assert 0 < verdict.time_s < 1


def test_a_memory_error_that_is_survived_is_no_fault(judge: Judge) -> None:
    code = "try:\n    bytearray(50 << 30)\nexcept MemoryError:\n    print(6)"
    assert judge.judge(echo(), code).accepted


def test_time_is_processor_time_of_all_threads_and_children(judge: Judge) -> None:
    if not judge.isolation.container.nested:
        pytest.skip("programs start no processes here")
    code = """
import os
for _ in range(3):
    if os.fork() == 0:
        for _ in range(10**8): pass
        os._exit(0)
for _ in range(3): os.wait()
print(6)
"""
    verdict = judge.judge(echo(time_s=0.4), code)
    assert verdict.status == "TLE", verdict


def test_a_program_that_misses_narrowly_is_measured_again(judge: Judge) -> None:
    code = "import time\nwhile time.process_time() < 0.55: pass\nprint(6)"
    verdict = judge.judge(echo(time_s=0.5), code)
    assert (verdict.status, verdict.rerun) == ("TLE", True), verdict
    assert not judge.judge(echo(time_s=0.9), code).rerun


def test_syntax_of_bytes_that_are_no_text(judge: Judge) -> None:
    for code in ("print(6)\0", "\udcff", "x" * 10**6 + "(", "(" * 5000):
        assert judge.judge(echo(), code).status in ("CE", "RE")


def test_the_first_failing_test_is_named(judge: Judge) -> None:
    tests = tuple(Test(input=f"{i}\n", output=f"{min(i, 3)}\n") for i in range(6))
    problem = Problem(id="p", statement="s", tests=tests)
    verdict = judge.judge(problem, "print(input())")
    assert (verdict.status, verdict.failed_test) == ("WA", 4)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_verdict_does_not_depend_on_what_was_judged_before(tmp_path: Path, workers: int) -> None:
    """The first failing test decides, though a later one fails most programs."""
    tests = tuple(Test(input=f"{i}\n", output=f"{i}\n", sample=i == 3) for i in range(5))
    problem = Problem(id="p", statement="s", tests=tests, limits=Limits(time_s=0.5))
    both = "n = int(input())\nwhile n == 4: pass\nprint(n if n != 1 else 'no')"
    sample = "n = int(input())\nwhile n == 2: pass\nprint(n if n != 3 else 'no')"
    last = [f"n = int(input())\nprint(n if n != 4 else 'no')  # {i}" for i in range(6)]

    def seen(order: list[str]) -> dict[str, tuple[str, int | None]]:
        with Judge(workers=workers, cache_dir=tmp_path / str(len(order))) as judge:
            found = dict(judge.judge_stream([(problem, code, code) for code in order]))
        return {code: (one.status, one.failed_test) for code, one in found.items()}

    alone = {**seen([both]), **seen([both, sample])}
    assert alone == {both: ("WA", 1), sample: ("TLE", 2)}
    for order in ([*last, both, sample], [*last, both, sample], [sample, *last, both, *last[:1]]):
        after = seen(order)
        assert {code: after[code] for code in (both, sample)} == alone
        assert {after[code] for code in last} == {("WA", 4)}


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("c++", "#include <bits/stdc++.h>\nint main() { int n, s = 0, x; std::cin >> n;"
         " while (n--) { std::cin >> x; s += x; } std::cout << s << std::endl; }"),
        ("c", '#include <stdio.h>\nint main(void) { int n, s = 0, x; scanf("%d", &n);'
         ' while (n--) { scanf("%d", &x); s += x; } printf("%d\\n", s); return 0; }'),
    ],
)  # fmt: skip
def test_compiled_languages(judge: Judge, language: str, code: str) -> None:
    try:
        find_language(language)
    except InputError as reason:
        pytest.skip(str(reason))
    problem = echo(tests=3)
    assert judge.judge(problem, code, language).accepted
    assert judge.judge(problem, "int main( {", language).status == "CE"
    crash = judge.judge(problem, "int main() { *(volatile int *)0 = 1; }", language)
    assert (crash.status, crash.signal) == ("RE", 11)
    peek = judge.judge(problem, '#include "/etc/shadow"\nint main() {}', language)
    assert peek.status == "CE"
    assert "root:" not in peek.message


def test_cpp_memory(judge: Judge) -> None:
    try:
        find_language("c++")
    except InputError as reason:
        pytest.skip(str(reason))
    code = "#include <vector>\nint main() { std::vector<char> x(1L << 40); return x[5]; }"
    assert judge.judge(echo(), code, "c++").status == "MLE"


def test_another_interpreter(judge: Judge) -> None:
    other = next((p for p in ("/usr/bin/python3",) if Path(p).exists()), None)
    if other is None:
        pytest.skip("there is no second Python here")
    code = "import sys\nprint(sys.executable)"
    with Judge(judge.isolation.level, 1, cache=False, python=other) as second:
        verdict = second.judge(echo(output=f"{find_interpreter(other).path}\n"), code)
    assert verdict.accepted, verdict


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sandbox": "castle"}, "castle"),
        ({"workers": 0}, "workers 0"),
        ({"python": "/no/such/python"}, "/no/such/python"),
        ({"python": "/bin/true"}, "python /bin/true: cannot be run"),
    ],
)
def test_settings_that_are_wrong(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Judge(cache=False, **settings)  # type: ignore[arg-type]


def test_problems_that_cannot_be_judged(judge: Judge) -> None:
    with pytest.raises(InputError, match="no tests"):
        judge.judge(Problem(id="p", statement="s"), "")
    with pytest.raises(InputError, match="cobol"):
        judge.judge(echo(), "", "cobol")


def test_verdicts_are_plain_json() -> None:
    import json

    record = Verdict("WA", failed_test=3, message="no").to_json()
    assert json.loads(json.dumps(record)) == record
    assert record["verdict"] == "WA"


def test_the_judge_needs_no_torch() -> None:
    code = (
        "import sys, hydragen_tree.judge\nassert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_expected_outputs_are_measured_in_bytes(judge: Judge) -> None:
    """Three bytes a character, and more of them than the limit on output allows by itself."""
    count = 500_000
    test = Test(input="", output="\u4e16" * count + "\n")
    problem = Problem(id="p", statement="s", tests=(test,), limits=Limits(output_mib=1))
    assert judge.judge(problem, f"print('\\u4e16' * {count})").status == "AC"
    assert judge.judge(problem, "print('6' * 4_000_000)").status == "OLE"


def test_expected_results_are_measured_too(judge: Judge) -> None:
    test = Test(call=(100_000,), expected=[[i, i] for i in range(100_000)])
    limits = Limits(output_mib=1)
    problem = Problem(id="p", statement="s", entry_point="f", tests=(test,), limits=limits)
    assert judge.judge(problem, "def f(n): return [(i, i) for i in range(n)]").status == "AC"
    assert judge.judge(problem, "def f(n): return 'x' * (8 << 20)").status == "OLE"


def test_closing_ends_after_the_test_that_runs(tmp_path: Path) -> None:
    tests = tuple(Test(input=f"{i}\n", output=f"{i}\n") for i in range(100))
    problem = Problem(id="p", statement="s", tests=tests)
    code = "import time\ntime.sleep(0.3)\nprint(input())"
    judge = Judge(workers=1, cache_dir=tmp_path)
    stream = judge.judge_stream([(problem, "print(input())", 0), (problem, code, 1)])
    assert next(stream)[1].accepted
    time.sleep(0.5)
    stream.close()  # type: ignore[attr-defined]
    started = time.monotonic()
    judge.close()
    assert time.monotonic() - started < 5
    with Judge(workers=1, cache_dir=tmp_path) as again:
        short = problem.model_copy(update={"tests": tests[:1]})
        assert again.judge(short, code).accepted
