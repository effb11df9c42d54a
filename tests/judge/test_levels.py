"""Where the tool is installed and at which level programs run changes no verdict."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.judge import Judge
from hydragen_tree.judge.sandbox.box import Box
from hydragen_tree.judge.sandbox.interpreter import find_interpreter
from hydragen_tree.judge.sandbox.levels import build
from hydragen_tree.judge.sandbox.request import Request, RunLimits
from hydragen_tree.problem.types import Problem, Test


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
    ],
    ids=["pool", "fork", "subprocess", "file", "temporary file", "database", "socket"],
)
@pytest.mark.parametrize("level", ["bubblewrap", "unshare", "landlock"])
def test_the_level_changes_no_verdict(level: str, code: str) -> None:
    """Where programs can start no processes it is said, and is no fault of theirs."""
    try:
        judge = Judge(level, 1, cache=False)
    except InputError as reason:
        pytest.skip(str(reason))
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
    try:
        judge = Judge(level, 1, cache=False)
    except InputError as reason:
        pytest.skip(str(reason))
    problem = Problem(id="p", statement="s", tests=(Test(code=tests),))
    code = (
        "import multiprocessing as m\ndef f():\n    with m.Pool() as p: return sum(p.map(abs, {}))"
    )
    with judge:
        right = judge.judge(problem, code.format([1, 2, 3]))
        assert right.status == ("IE" if level == "landlock" else "AC"), right
        wrong = judge.judge(problem, code.format([1, 2]))
        assert wrong.status == ("IE" if level == "landlock" else "WA"), wrong
