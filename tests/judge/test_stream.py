"""Streams of programs: duplicates, old verdicts, bounds, ends, faults; self_checks of problems."""

import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.judge import Judge, Verdict, worker
from hydragen_tree.judge.normal_form import normal_form
from hydragen_tree.judge.sandbox.box import BoxError
from hydragen_tree.judge.self_check import check_problems
from hydragen_tree.judge.store import Store
from hydragen_tree.problem.types import Limits, Problem, Submission, Test

SUM = Problem(
    id="sum",
    statement="Add.",
    tests=(Test(input="1 2\n", output="3\n", sample=True), Test(input="4 5\n", output="9\n")),
    limits=Limits(time_s=1),
)
RIGHT = "print(sum(map(int, input().split())))"


IN_C = '#include <stdio.h>\nint main() { int a, b; scanf("%d%d", &a, &b); printf("%d", a + b); }'


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(workers=2, cache=False) as judge:
        yield judge


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The programs that were really run."""
    seen: list[str] = []
    judge = worker.Worker.judge

    def count(self, problem, limits, checker, code, language):  # type: ignore[no-untyped-def]
        seen.append(code)
        return judge(self, problem, limits, checker, code, language)

    monkeypatch.setattr(worker.Worker, "judge", count)
    return seen


def test_every_item_is_answered_once(judge: Judge) -> None:
    codes = [RIGHT, "print(3)", "print(", "1/0"]
    items = [(SUM, codes[i % 4] + f"\n# {i % 8}", i) for i in range(40)]
    answers = dict(judge.judge_stream(items))
    assert sorted(answers) == list(range(40))
    statuses = [answers[i].status for i in range(4)]
    assert statuses == ["AC", "WA", "CE", "RE"]
    assert all(answers[i].status == statuses[i % 4] for i in range(40))


def test_identical_programs_run_once(judge: Judge, runs: list[str]) -> None:
    items = [(SUM, RIGHT + "\n# same" + " " * (i % 3) + "\n" * (i % 2), i) for i in range(30)]
    verdicts = [verdict for _, verdict in judge.judge_stream(items)]
    assert len(runs) == 1
    assert [v.cached for v in verdicts].count(False) == 1
    assert {v.status for v in verdicts} == {"AC"}


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ("a = 1  \nb = 2\n\n", "a = 1\nb = 2", True),
        ("a = 1\r\nb = 2", "a = 1\nb = 2", True),
        ("a = '''x  \n'''", "a = '''x\n'''", False),
        ("a = 1 + \\\n 2", "a = 1 + \\ \n 2", False),
        ("a = 1\n\nb = 2", "a = 1\nb = 2", False),  # line numbers show in messages
        ("  a", "a", False),
    ],
)
def test_white_space_that_cannot_matter(first: str, second: str, equal: bool) -> None:
    assert (normal_form(first) == normal_form(second)) == equal


def test_verdicts_appear_while_items_still_come(judge: Judge) -> None:
    answered = threading.Event()

    def items() -> Iterator[tuple[Problem, str, str]]:
        yield SUM, RIGHT + "  # early", "early"
        assert answered.wait(20), "no answer before the next item"
        yield SUM, RIGHT + "  # late", "late"

    stream = judge.judge_stream(items())
    assert next(stream)[0] == "early"
    answered.set()
    assert [tag for tag, _ in stream] == ["late"]


def test_items_are_read_a_little_ahead_only(judge: Judge) -> None:
    read = itertools.count()
    last = 0

    def items() -> Iterator[tuple[Problem, str, int]]:
        nonlocal last
        while True:
            last = next(read)
            yield SUM, RIGHT, last

    stream = judge.judge_stream(items())
    for _ in range(500):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert last < 500 + 64 * judge.workers + 10
    assert judge.judge(SUM, RIGHT).accepted


def test_a_stop_ends_the_stream_after_what_runs(judge: Judge, runs: list[str]) -> None:
    stop = threading.Event()
    endless = ((SUM, RIGHT + f"\n# stop {i}", i) for i in itertools.count())
    answered = []
    for tag, verdict in judge.judge_stream(endless, stop=stop):
        answered.append(tag)
        assert verdict.accepted
        if len(answered) == 5:
            stop.set()
    assert sorted(answered) == list(range(len(answered)))
    assert len(answered) == len(runs) < 64 * judge.workers


def test_a_stop_does_not_wait_for_an_input_that_never_comes(judge: Judge) -> None:
    stop, never = threading.Event(), threading.Event()

    def items() -> Iterator[tuple[Problem, str, int]]:
        yield SUM, RIGHT, 0
        never.wait()

    stream = judge.judge_stream(items(), stop=stop)
    next(stream)
    stop.set()
    started = time.monotonic()
    assert list(stream) == []
    assert time.monotonic() - started < 5
    never.set()


def test_items_that_are_no_longer_wanted_are_dropped(judge: Judge, runs: list[str]) -> None:
    asked: list[int] = []

    def wanted(tag: int) -> bool:
        asked.append(tag)
        return tag % 2 == 0

    items = [(SUM, RIGHT + f"\n# wanted {i}", i) for i in range(20)]
    answers = dict(judge.judge_stream(items, wanted=wanted))
    assert sorted(answers) == list(range(0, 20, 2))
    assert sorted(asked) == list(range(20))
    assert len(runs) == 10


def test_errors_of_the_source_arrive_after_the_verdicts(judge: Judge) -> None:
    def items() -> Iterator[tuple[Problem, str, int]]:
        yield SUM, RIGHT, 0
        raise OSError("the disk is gone")

    stream = judge.judge_stream(items())
    assert next(stream)[1].accepted
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)


def test_old_verdicts_are_kept(tmp_path: Path, judge: Judge, runs: list[str]) -> None:
    def judge_once(problem: Problem, code: str) -> Verdict:
        with Judge(judge.isolation.level, 1, tmp_path) as again:
            return again.judge(problem, code)

    first = judge_once(SUM, RIGHT)
    second = judge_once(SUM, RIGHT + "\n")
    assert (first.cached, second.cached, len(runs)) == (False, True, 1)
    assert (first.status, first.time_s) == (second.status, second.time_s)
    assert not judge_once(SUM.model_copy(update={"limits": Limits(time_s=2)}), RIGHT).cached
    other_tests = SUM.model_copy(update={"tests": SUM.tests[:1]})
    assert not judge_once(other_tests, RIGHT).cached
    retold = SUM.model_copy(update={"statement": "Add them."})
    assert judge_once(retold, RIGHT).cached
    assert len(runs) == 3


def test_a_changed_checker_is_another_problem(tmp_path: Path, judge: Judge) -> None:
    path = tmp_path / "check.py"
    problem = SUM.model_copy(update={"source": str(tmp_path / "p.yaml")})
    problem = Problem.model_validate(
        {
            **problem.model_dump(),
            "source": problem.source,
            "tests": [{"input": "", "output": ""}],
            "checker": {"type": "program", "source": "check.py", "protocol": "python"},
        }
    )
    for word in (True, False, True):
        path.write_text(f"def check(*all): return {word}")
        with Judge(judge.isolation.level, 1, tmp_path / "cache") as fresh:
            assert fresh.judge(problem, "print()").accepted == word


@pytest.mark.parametrize("fault", ["broken file", "read-only"])
def test_a_useless_cache_is_no_fault(tmp_path: Path, judge: Judge, fault: str) -> None:
    if fault == "broken file":
        (tmp_path / "verdicts.sqlite").write_bytes(b"no database" * 1000)
        store = Store(tmp_path)
    else:
        (tmp_path / "file").write_text("")
        store = Store(tmp_path / "file" / "below")
    assert not store.lasting
    store.put("00" * 32, Verdict("AC"))
    assert store.get("00" * 32) == Verdict("AC")
    assert store.get("11" * 32) is None
    store.close()


def test_faults_of_the_sandbox_are_nobodys_wrong_answer(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hydragen_tree.judge.sandbox.box import Box

    real, failures = Box.run, 0

    def fail(self: Box, *args: object, **named: object) -> object:
        nonlocal failures
        failures += 1
        raise BoxError("the sandbox is on fire")

    monkeypatch.setattr(Box, "run", fail)
    verdict = judge.judge(SUM, RIGHT + "  # on fire")
    assert (verdict.status, failures) == ("IE", 2)
    assert "on fire" in verdict.message
    monkeypatch.setattr(Box, "run", real)
    again = judge.judge(SUM, RIGHT + "  # on fire")
    assert again.accepted
    assert not again.cached


def test_a_sandbox_that_dies_is_started_again(judge: Judge) -> None:
    with Judge(judge.isolation.level, 1, cache=False) as lone:
        assert lone.judge(SUM, RIGHT).accepted
        runners = [p for p in children_of(os.getpid()) if "guest.runner" in cmdline(p)]
        assert runners
        for pid in runners:
            os.kill(pid, 9)
        assert lone.judge(SUM, RIGHT + "#").accepted


def children_of(top: int) -> list[int]:
    found = [top]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found[1:]


def cmdline(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def test_close_leaves_no_process_and_no_descriptor(judge: Judge) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    before = set(children_of(os.getpid()))
    with Judge(judge.isolation.level, 2, cache=False) as short:
        for i in range(6):
            short.judge(SUM, RIGHT + f"\n# {i}")
    assert set(children_of(os.getpid())) <= before
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1  # noqa: PTH208


def test_memory_stays_flat(judge: Judge) -> None:
    import resource

    def judged(count: int) -> int:
        items = ((SUM, RIGHT + f"\n# {i % 3}", i) for i in range(count))
        for _ in judge.judge_stream(items):
            pass
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    first = judged(1000)
    assert judged(10_000) - first < 20_000  # KiB


WRONG, SLOW = "print(3)", "while True: pass"


def test_check(judge: Judge) -> None:
    tests = SUM.tests
    good = Problem(
        id="good", statement="s", tests=tests, solution=RIGHT, limits=Limits(time_s=0.3),
        submissions=(Submission(verdict="WA", code=WRONG), Submission(verdict="TLE", code=SLOW)),
    )  # fmt: skip
    wrong_passes = good.model_copy(
        update={"id": "lenient", "submissions": (Submission(verdict="WA", code=RIGHT),)}
    )
    wrong_reference = good.model_copy(update={"id": "wrong", "solution": WRONG})
    bare = good.model_copy(update={"id": "bare", "solution": None, "submissions": ()})
    untested = good.model_copy(update={"id": "untested", "tests": ()})
    problems = [good, wrong_passes, wrong_reference, bare, untested]
    found = {c.problem.id: c for c in check_problems(judge, problems)}
    assert {name for name, self_check in found.items() if self_check.good} == {"good"}
    assert found["good"].faults() == []
    assert found["lenient"].faults() == ["submission 1 (WA): expected WA, got AC"]
    assert "solution: expected AC, got WA on test 1" in found["wrong"].faults()[0]
    assert "neither a solution" in found["bare"].faults()[0]
    assert "no tests" in found["untested"].faults()[0]


def test_calibration(judge: Judge) -> None:
    busy = "import time\nwhile time.process_time() < {}: pass\n" + RIGHT
    hurried = Problem(
        id="hurried", statement="s", tests=SUM.tests[:1], solution=busy.format(0.3),
        submissions=(Submission(verdict="TLE", code=busy.format(0.45)),),
        limits=Limits(time_s=0.1),
    )  # fmt: skip
    [self_check] = check_problems(judge, [hurried], calibrate=True)
    assert self_check.unsolved
    assert not self_check.good
    assert self_check.slowest_s is not None
    assert 0.3 <= self_check.slowest_s < 0.8
    assert self_check.suggested_s is not None
    assert 2 * self_check.slowest_s <= self_check.suggested_s <= 2
    faults = "; ".join(self_check.faults())
    assert "no Python program is accepted within its time limit" in faults
    assert "submission 1 (TLE): is not too slow" in faults


def test_an_items_tag_tells_its_language(judge: Judge, runs: list[str]) -> None:
    """A program is a duplicate only of one in the same language."""
    in_python = f"{RIGHT}  # not C"
    codes = {"python": in_python, "c": IN_C, "C++": IN_C, "cpp": IN_C}
    items = [(SUM, code, language) for language, code in codes.items()]
    answers = dict(judge.judge_stream(items, str))
    assert {tag: verdict.status for tag, verdict in answers.items()} == dict.fromkeys(codes, "AC")
    assert sorted(runs) == sorted([in_python, IN_C, IN_C])
    swapped = judge.judge_stream([(SUM, IN_C, "python"), (SUM, RIGHT, "c")], str)
    assert [verdict.status for _, verdict in swapped] == ["CE", "CE"]


def test_an_unknown_language_ends_the_stream(judge: Judge) -> None:
    with pytest.raises(InputError, match="cobol"):
        judge.judge_stream([], "cobol")
    stream = judge.judge_stream([(SUM, RIGHT, "python"), (SUM, RIGHT, "cobol")], str)
    assert next(stream)[0] == "python"
    with pytest.raises(InputError, match="cobol"):
        next(stream)


def test_a_problem_is_refused_before_anything_runs(judge: Judge) -> None:
    with pytest.raises(InputError, match="sum: no tests"):
        judge.require_judgeable(SUM.model_copy(update={"tests": ()}))
