"""Where the tool is installed and at which level programs run changes no verdict."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hydragen_tree.judge import Judge
from hydragen_tree.judge.sandbox.box import Box
from hydragen_tree.judge.sandbox.interpreter import find_interpreter
from hydragen_tree.judge.sandbox.levels import GUEST, LEVELS, build
from hydragen_tree.judge.sandbox.request import Request, RunLimits
from hydragen_tree.problem.checkers import ProgramChecker
from hydragen_tree.problem.types import Problem, Test
from tests.judge.offered import judge_at, offers

CAUGHT = """
import multiprocessing as m, os, socket as k, subprocess as s
try:
    {}
    print(6)
except Exception:
    print(5)
"""


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(workers=2, cache=False) as judge:
        yield judge


@pytest.fixture(scope="module")
def box(judge: Judge) -> Iterator[Box]:
    box = Box(judge.isolation.container)
    yield box
    box.dispose()


@pytest.mark.parametrize("level", ["bubblewrap", "unshare", "landlock"])
def test_a_level_that_the_machine_offers_is_there(level: str) -> None:
    """A level that stopped working would else show as skipped tests and a weaker one in force."""
    if not offers(level):
        pytest.skip(f"this machine does not offer {level}")
    problem = Problem(id="p", statement="s", tests=(Test(input="2\n", output="4\n"),))
    with Judge(level, 1, cache=False) as judge:
        assert (judge.isolation.level, judge.isolation.holds) == (level, True)
        assert judge.judge(problem, "print(2 * int(input()))").status == "AC"
        assert judge.judge(problem, "print(3 * int(input()))").status == "WA"


def test_the_strongest_level_that_the_machine_offers_is_taken() -> None:
    offered = [level for level in LEVELS if level != "rlimits" and offers(level)]
    if not offered:
        pytest.skip("this machine offers none")
    with Judge("auto", 1, cache=False) as judge:
        assert judge.isolation.level == offered[0], judge.isolation.passed_over


@pytest.mark.parametrize("level", ["bubblewrap", "unshare", "landlock"])
def test_an_interpreter_below_tmp(level: str, tmp_path: Path) -> None:
    """The private /tmp of a program does not hide what it must read there."""
    library = tmp_path / "python"
    library.mkdir()
    (library / "answer.py").write_text("ANSWER = 6")
    found = find_interpreter()
    interpreter = replace(found, prefixes=(*found.prefixes, str(library)))
    container = build(level, interpreter)  # type: ignore[arg-type]
    if container is None:
        pytest.skip(f"{level} is not installed")
    box = Box(container)
    limits = RunLimits(cpu_s=5, wall_s=10, memory_bytes=512 << 20)
    reads = f"import sys\nsys.path.insert(0, {str(library)!r})\nimport answer\nprint(answer.ANSWER)"
    writes = f"open({str(library / 'answer.py')!r}, 'w')"
    litters = "open('/tmp/left', 'w')"
    try:
        for code, status in ((reads, 0), (writes, 1), (litters, None), (reads, 0)):
            outcome = box.run(Request(limits, sources=[("solution.py", code)]))
            assert status in (None, outcome.exit_status), outcome
            assert code is not reads or outcome.stdout == b"6\n"
    finally:
        box.dispose()
    assert list(library.glob("*.py")) == [library / "answer.py"]


@pytest.mark.parametrize("nested", [True, False])
def test_bubblewrap_covers_tmp_before_what_lies_below(
    nested: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    interpreter = replace(find_interpreter(), prefixes=(str(tmp_path),))
    container = build("bubblewrap", interpreter, nested=nested)
    assert container is not None
    command = list(container.command)
    assert command.index("--tmpfs") < command.index(str(tmp_path))


@pytest.mark.parametrize(
    "code",
    [
        "import multiprocessing as m\nwith m.Pool(2) as p: print(sum(p.map(abs, [1, 2, 3])))",
        "import os\nif os.fork() == 0: os._exit(0)\nos.wait()\nprint(6)",
        "import subprocess as s\nprint(s.run(['echo', '6'], stdout=s.PIPE, text=True).stdout)",
        "open('/tmp/six', 'w').write('6')\nprint(open('/tmp/six').read())",
        "import tempfile as t\nwith t.TemporaryFile() as f: print(5 + f.write(b'6'))",
        "import sqlite3\nsqlite3.connect('a.db').execute('create table t(a)')\nprint(6)",
        "import socket\nsocket.socket().bind(('127.0.0.1', 0))\nprint(6)",
        # None of these fails of being refused.
        CAUGHT.format("os.wait() if os.fork() else os._exit(0)"),
        CAUGHT.format("s.run(['true'], check=True)"),
        CAUGHT.format("m.Process(target=abs, args=(6,)).start()"),
        CAUGHT.format("k.socket().bind(('127.0.0.1', 0))"),
        "import os\nprint(6 if os.system('exit 3') >> 8 == 3 else 5)",
        "import os\nprint(os.popen('echo 6').read())",
        "import os\nif os.system('true'): raise SystemExit(1)\nprint(6)",
    ],
    ids=[
        *("pool", "fork", "subprocess", "file", "temporary file", "database", "socket"),
        *("caught fork", "caught subprocess", "caught process", "caught socket"),
        *("system", "popen", "system that fails"),
    ],
)
@pytest.mark.parametrize("level", ["bubblewrap", "unshare", "landlock"])
def test_the_level_changes_no_verdict(level: str, code: str) -> None:
    """Where programs can start no processes it is said, and is no fault of theirs."""
    judge = judge_at(level)
    problem = Problem(id="p", statement="s", tests=(Test(input="", output="6\n"),))
    with judge:
        verdict = judge.judge(problem, code)
        assert verdict.status == ("IE" if level == "landlock" else "AC"), verdict
        allowed = level != "landlock" or "which landlock allows to none" in verdict.message
        assert allowed, verdict
        assert judge.judge(problem, "raise PermissionError(13, 'SemLock')").status == "RE"


@pytest.mark.parametrize("tests", ["assert f() == 6", "assert f() + f() == 12"])
@pytest.mark.parametrize("level", ["bubblewrap", "unshare", "landlock"])
def test_the_level_changes_no_verdict_on_test_code(level: str, tests: str) -> None:
    """Apart from the program, and beside it."""
    judge = judge_at(level)
    problem = Problem(id="p", statement="s", tests=(Test(code=tests),))
    code = (
        "import multiprocessing as m\ndef f():\n    with m.Pool() as p: return sum(p.map(abs, {}))"
    )
    with judge:
        right = judge.judge(problem, code.format([1, 2, 3]))
        assert right.status == ("IE" if level == "landlock" else "AC"), right
        wrong = judge.judge(problem, code.format([1, 2]))
        assert wrong.status == ("IE" if level == "landlock" else "WA"), wrong


@pytest.mark.parametrize("level", ["bubblewrap", "unshare", "landlock"])
def test_the_level_changes_no_verdict_on_compiled_programs(level: str) -> None:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    judge = judge_at(level)
    problem = Problem(id="p", statement="s", tests=(Test(input="", output="6\n"),))
    code = """
        #include <cstdio>
        #include <cstdlib>
        #include <sys/wait.h>
        #include <unistd.h>
        int main() {
            int pid = fork();
            if (pid == 0) _exit(0);
            if (pid > 0) wait(nullptr);
            puts(pid > 0 && system("exit 3") >> 8 == 3 ? "6" : "5");
        }
    """
    with judge:
        verdict = judge.judge(problem, code, "c++")
        assert verdict.status == ("IE" if level == "landlock" else "AC"), verdict
        threads = "#include <thread>\n#include <cstdio>\nint main() {"
        threads += ' std::thread([] { puts("6"); }).join(); }'
        assert judge.judge(problem, threads, "c++").status == "AC"


ASKS_ONCE = """
import sys
line = sys.stdin.readline()
sys.exit(42 if line == "6\\n" else 43)
"""


@pytest.mark.parametrize("level", ["bubblewrap", "unshare", "landlock"])
@pytest.mark.parametrize(
    "code",
    [
        "open('/tmp/six', 'w').write('6')\nprint(open('/tmp/six').read())",
        "import os\nprint(6 if os.system('exit 3') >> 8 == 3 else 5, flush=True)",
        CAUGHT.format("os.wait() if os.fork() else os._exit(0)"),
    ],
    ids=["file", "system", "caught fork"],
)
def test_the_level_changes_no_verdict_of_an_interactor(
    level: str, code: str, tmp_path: Path
) -> None:
    judge = judge_at(level)
    (tmp_path / "asks.py").write_text(ASKS_ONCE)
    checker = ProgramChecker(type="program", source="asks.py", protocol="kattis", interactive=True)
    test = Test(input="", output="")
    problem = Problem(
        id="p", statement="s", tests=(test,), checker=checker, source=str(tmp_path / "p.yaml")
    )
    with judge:
        verdict = judge.judge(problem, code)
        assert verdict.status == ("IE" if level == "landlock" else "AC"), verdict
        assert level != "landlock" or "which landlock allows to none" in verdict.message
        assert judge.judge(problem, "print(5)").status == "WA"
        assert judge.judge(problem, "print(6, flush=True)\n1/0").status == "RE"


def test_a_listener_that_cannot_be() -> None:
    """As in a container with one of its own: what is refused is so all the same, but not told."""
    nested = (
        "import ctypes, os, sys\n"
        f"sys.path.insert(0, {str(GUEST.parent)!r})\n"
        "from guest import kernel, seccomp\n"
        "kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)\n"
        "os.set_inheritable(seccomp.install_told(seccomp._Program().code()), True)\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    container = build("landlock", find_interpreter())
    assert container is not None
    command = (container.command[0], "-c", nested, *container.command)
    box = Box(replace(container, command=command))
    limits = RunLimits(cpu_s=5, wall_s=10, memory_bytes=512 << 20)
    try:
        code = "import os\ntry: os.fork()\nexcept OSError as error: print(error.errno)"
        outcome = box.run(Request(limits, sources=[("solution.py", code)]))
        assert (outcome.stdout, outcome.not_allowed) == (b"11\n", ""), outcome
        outcome = box.run(Request(limits, sources=[("solution.py", "print(")]))
        assert outcome.refused
    finally:
        box.dispose()
