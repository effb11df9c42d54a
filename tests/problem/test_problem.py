"""Problem files: what is read, and what is said about files that are wrong."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.problem.checkers import FloatChecker, TokensChecker
from hydragen_tree.problem.reading import load_problem, load_problems
from hydragen_tree.problem.types import Problem

FULL = """\
id: twice
title: Twice
statement: |
  Print the number twice.
difficulty: easy
tests:
  - {input: "3\\n", output: "3 3\\n", sample: true}
  - {input: "4\\n", output: "4 4\\n"}
limits: {time_s: 1.5, memory_mib: 64}
checker: {type: float, abs_tol: 1e-9}
few_shot:
  pool: few_shot/pool.yaml
  shots: 1
  variants: [[echo], [negate]]
solution: |
  n = input()
  print(n, n)
submissions:
  - {verdict: WA, code: "print(input())"}
template: plain
"""
POOL = """\
examples:
- id: echo
  statement: Print the line.
  tests: [{input: "a\\n", output: "a\\n", sample: true}]
  solution: print(input())
- id: negate
  statement: Print the number negated.
  solution: print(-int(input()))
"""
SHORT = "statement: Print the number twice.\ntests: [{input: a, output: b}]\n"

Write = Callable[..., Path]


def faults(*sources: str) -> list[str]:
    """The lines of the error that these sources cause."""
    with pytest.raises(InputError) as caught:
        load_problems(sources)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def piped(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


# --- what is read ---


def test_everything_a_file_can_say(write: Write) -> None:
    write("few_shot/pool.yaml", POOL)
    problem = load_problem(write("any.yaml", FULL))
    assert problem.id == "twice"
    assert problem.source == "any.yaml"
    assert problem.samples == [("3\n", "3 3\n")]
    assert problem.limits.time_s == 1.5
    assert problem.checker == FloatChecker(type="float", abs_tol=1e-9)
    assert problem.few_shot is not None
    assert [example.id for example in problem.few_shot.pool] == ["echo", "negate"]
    assert problem.few_shot.variants == (("echo",), ("negate",))
    assert problem.submissions[0].verdict == "WA"
    assert type(problem.statement) is str


def test_what_a_file_need_not_say(write: Write) -> None:
    problem = load_problem(write("some-name.yml", SHORT))
    assert problem.id == "some-name"
    assert (problem.limits.time_s, problem.limits.memory_mib) == (2, 256)
    assert problem.checker == TokensChecker()
    assert problem.few_shot is None
    assert problem.examples == ()


def test_problems_are_frozen_values(write: Write) -> None:
    problem = load_problem(write("a.yaml", SHORT))
    assert problem == load_problem("a.yaml")
    with pytest.raises(ValueError, match="frozen"):
        problem.title = "x"  # type: ignore[misc]
    assert isinstance(problem, Problem)


@pytest.mark.parametrize("name", ["tokens", "exact", "float"])
def test_checker_by_name(write: Write, name: str) -> None:
    assert load_problem(write("a.yaml", f"{SHORT}checker: {name}")).checker.type == name


def test_byte_order_mark_and_carriage_returns_do_not_matter(write: Write) -> None:
    write("few_shot/pool.yaml", POOL)
    plain = load_problem(write("a.yaml", FULL))
    windows = load_problem(write("b.yaml", "\ufeff" + FULL.replace("\n", "\r\n")))
    assert windows.content_hash == plain.content_hash


def test_content_hash_is_of_what_is_said_and_not_of_where(write: Write) -> None:
    write("few_shot/pool.yaml", POOL)
    write("elsewhere/few_shot/pool.yaml", POOL)
    one = load_problem(write("a.yaml", FULL)).content_hash
    assert load_problem(write("elsewhere/b.yaml", FULL)).content_hash == one
    assert load_problem(write("c.yaml", f"{FULL}starter: ''\n")).content_hash == one  # a default
    assert load_problem(write("d.yaml", FULL.replace("1.5", "2.5"))).content_hash != one
    write("few_shot/pool.yaml", POOL.replace("the line", "a line"))
    assert load_problem("a.yaml").content_hash != one


def test_content_hash_covers_the_checkers_program(write: Write) -> None:
    write("c.py", "def check(input, answer, output): return True")
    text = f"{SHORT}checker: {{type: program, source: c.py, protocol: python}}"
    before = load_problem(write("a.yaml", text)).content_hash
    write("c.py", "def check(input, answer, output): return False")
    assert load_problem("a.yaml").content_hash != before


def test_a_problem_in_its_own_pool_is_no_example(write: Write) -> None:
    text = f"{SHORT}few_shot: {{pool: pool.yaml}}"
    write("pool.yaml", POOL + "- {id: other, statement: Print the number twice., solution: x}\n")
    assert [e.id for e in load_problem(write("a.yaml", text)).examples] == ["echo", "negate"]
    assert [e.id for e in load_problem(write("echo.yaml", text)).examples] == ["negate"]


# --- where it is read from ---


def test_directories_globs_and_files_each_once(write: Write) -> None:
    for name in ("set/b.yaml", "set/a.yml", "set/deep/c.yaml"):
        write(name, SHORT)
    write("set/pool.yaml", POOL)
    write("set/notes.txt", "no YAML: [")
    assert [p.id for p in load_problems(["set"])] == ["a", "b"]
    assert [p.id for p in load_problems(["set/b.yaml", "./set", "set/*"])] == ["b", "a"]
    assert [p.id for p in load_problems(["set/**/*.yaml"])] == ["b", "c"]
    assert [p.source for p in load_problems(["set/[b]*"])] == ["set/b.yaml"]


def test_absolute_glob(write: Write) -> None:
    path = write("set/b.yaml", SHORT).resolve()
    assert load_problems([str(path.parent / "*")])[0].source == str(path)


def test_a_name_that_looks_like_a_glob_is_a_name_first(write: Write) -> None:
    write("[x].yaml", f"id: x\n{SHORT}")
    assert load_problems(["[x].yaml"])[0].id == "x"


def test_a_shared_pool_is_read_once(write: Write) -> None:
    write("pool.yaml", POOL)
    for name in ("a", "b", "deep/../c"):
        write(f"{name}.yaml", f"{SHORT}few_shot: {{pool: pool.yaml, shots: 1}}")
    a, b, c = load_problems(["."])
    assert a.examples[0] is b.examples[0] is c.examples[0]


def test_documents_on_stdin(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("few_shot/pool.yaml", POOL)
    piped(monkeypatch, f"---\n{FULL}---\nid: short\n{SHORT}---\n")
    twice, short = load_problems(["-"])
    assert (twice.id, short.id) == ("twice", "short")
    assert twice.source == "<stdin>"


def test_stdin_has_no_name_to_lend(monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, f"id: a\n{SHORT}---\n\n{SHORT}")
    (fault,) = faults("-")
    assert fault.startswith("<stdin>:6: id: missing, expected unique name")


def test_package_by_its_directory_or_its_own_file(write: Write) -> None:
    write("sets/adding/problem.yaml", "problem_format_version: 2025-09\nname: Adding\n")
    write("sets/adding/statement/problem.en.md", "Print the sum.\n")
    write("sets/adding/data/secret/1.in", "1 2\n")
    write("sets/adding/data/secret/1.ans", "3\n")
    write("sets/adding.yaml", SHORT.replace("twice", "thrice") + "id: other")
    (one,) = load_problems(["sets/adding"])
    assert one.id == "adding"
    assert load_problem("sets/adding/problem.yaml") == one
    assert load_problem(one.source) == one
    assert [p.id for p in load_problems(["sets"])] == ["adding", "other"]
    assert [p.id for p in load_problems(["sets/*/problem.yaml"])] == ["adding"]


# --- what is said about wrong files ---
