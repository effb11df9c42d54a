"""Problem files with faults: all of them named, by file, line and key."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydragen_tree.errors import InputError
from hydragen_tree.problem.reading import load_problem, load_problems, problem_from_document

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


EXAMPLES = "[{id: a, statement: A, solution: x}, {id: b, statement: B, solution: y}]"


SHORT = "statement: Print the number twice.\ntests: [{input: a, output: b}]\n"


Write = Callable[..., Path]


def faults(*sources: str) -> list[str]:
    """The lines of the error that these sources cause."""
    with pytest.raises(InputError) as caught:
        load_problems(sources)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def test_all_faults_of_all_files_at_once_in_order(write: Write) -> None:
    write(
        "a.yaml",
        """\
id: Bad Id
titel: x
statement: "  "
difficulty: eazy
tests:
  - {input: 3, output: "1"}
  - {inputs: "a", output: "b", sample: perhaps}
  - input: a
limits:
  time_s: -1
  memory_mib: 1.5
  speed: 3
checker: {type: tokens, case_sensitve: false}
submissions:
- verdict: XX
""",
    )
    write("b.yaml", "statement: [x]\nchecker: magic\n")
    assert faults("a.yaml", "b.yaml") == [
        "a.yaml:1: id: got 'Bad Id', expected text that matches ^[A-Za-z0-9][A-Za-z0-9_./-]*$",
        "a.yaml:2: titel: unknown key, did you mean 'title'?",
        "a.yaml:3: statement: got '  ', expected text that is not blank",
        "a.yaml:4: difficulty: got 'eazy', expected 'easy', 'medium' or 'hard'",
        "a.yaml:6: tests[0].input: got 3, expected text (put it in quotes)",
        "a.yaml:7: tests[1].sample: got 'perhaps', expected true or false",
        "a.yaml:7: tests[1].inputs: unknown key, did you mean 'input'?",
        "a.yaml:8: tests[2]: expected `input` and `output`, or `call` and `expected`, or `code`",
        "a.yaml:10: limits.time_s: got -1, expected greater than 0",
        "a.yaml:11: limits.memory_mib: got 1.5, expected a whole number",
        "a.yaml:12: limits.speed: unknown key, expected one of time_s, memory_mib, output_mib",
        "a.yaml:13: checker.case_sensitve: unknown key, did you mean 'case_sensitive'?",
        "a.yaml:15: submissions[0].verdict: got 'XX', "
        "expected 'AC', 'WA', 'TLE', 'MLE', 'OLE', 'RE' or 'CE'",
        "a.yaml:15: submissions[0].code: missing, expected the program",
        "b.yaml:1: statement: got ['x'], expected text",
        "b.yaml:2: checker: got 'magic', expected one of 'tokens', 'exact', 'float', 'program'",
    ]


WRONG_KEYS = {
    "limits: {time_s: .inf}": "limits.time_s: got inf, expected a finite number",
    "limits: {time_s: .nan}": "limits.time_s: got nan, expected a finite number",
    "limits: 2": "limits: got 2, expected a mapping",
    "limits: {time_s: fast}": "limits.time_s: got 'fast', expected a number",
    "checker: {case_sensitive: false}": "checker: got {'case_sensitive': false}, expected",
    "checker: {type: program, source: no.py, protocol: python}": "checker.source: no such file",
    "source: x": "source: unknown key",
    "entry_point: f g": "entry_point: got 'f g', expected text that matches ^[A-Za-z_]",
    "few_shot: {shots: 1}": "few_shot.pool: missing, expected examples to choose from",
    "few_shot: {pool: no.yaml}": "few_shot.pool: no such file no.yaml",
}


WRONG_CHOICES = {
    "shots: -1": "shots: got -1, expected greater than or equal to 0",
    "shots: 3": "shots: 3 asked for, but the pool holds 2",
    "variants: 0": "variants: got 0, expected greater than or equal to 1",
    "variants: 3": "variants: 3 asked for, but there are 2 ways",
    "shots: 0, variants: 2": "variants: 2 asked for, but there are 1 ways",
    "variants: all": "variants: got 'all', expected a whole number, or lists of example ids",
    "variants: []": "variants: empty, expected at least 1",
    "variants: [a]": "variants[0]: got 'a', expected a list",
    "variants: [[a, c]]": "variants: no example 'c', expected ids of the pool: a, b",
    "variants: [[a, a]]": "variants: [a, a] names an example twice",
    "variants: [[a], [a]]": "variants: the same choice twice",
    "shots: 2, variants: [[a]]": "variants: [a] has 1, but shots says 2",
    "pool: [{id: a, statement: A, solution: x}, {id: a, statement: B, solution: y}]": "pool: "
    "example 'a' comes twice",
    "variants: [[w]], pool: [{id: w, statement: A, solution: x}]": "variants: 'w' is this problem",
    "variants: [[a]], pool: [{id: a, statement: S, solution: x}]": "variants: 'a' is this problem",
}


@pytest.mark.parametrize("text", WRONG_KEYS)
def test_wrong_key(write: Write, text: str) -> None:
    write("w.yaml", f"statement: S\ntests: [{{input: a, output: b}}]\n{text}\n")
    (fault,) = faults("w.yaml")
    assert fault.startswith(f"w.yaml:3: {WRONG_KEYS[text]}")


@pytest.mark.parametrize("text", WRONG_CHOICES)
def test_wrong_choice_of_examples(write: Write, text: str) -> None:
    pool = "" if "pool" in text else f"pool: {EXAMPLES}, "
    write("w.yaml", f"statement: S\nfew_shot: {{{pool}{text}}}\n")
    (fault,) = faults("w.yaml")
    assert fault.startswith(f"w.yaml:2: few_shot.{WRONG_CHOICES[text]}")


def test_explicit_variants_need_no_shots(write: Write) -> None:
    text = f"{SHORT}few_shot: {{pool: {EXAMPLES}, variants: [[], [a], [b, a]]}}"
    few_shot = load_problem(write("w.yaml", text)).few_shot
    assert few_shot is not None
    assert few_shot.variants == ((), ("a",), ("b", "a"))


WRONG_FILES = {
    b"": "w.yaml:1: empty, expected a YAML mapping",
    b"# nothing\n---\n": "w.yaml:1: empty, expected a YAML mapping",
    b"- a\n": "w.yaml:1: expected a mapping with `id`, `statement`, ...",
    b"examples: []\n": "w.yaml:1: a pool of few-shot examples, expected a problem",
    b"id: a\nb: \xe4\n": "w.yaml:2: byte 0xe4 is not UTF-8, expected the file saved as UTF-8",
    "id: a".encode("utf-16"): "w.yaml:1: byte 0xff is not UTF-8",
    b"id: a\nb: [1\nc: 2\n": "w.yaml:3:2: not valid YAML: while parsing a flow sequence: expected",
    b"id: a\n\tb: 1\n": "w.yaml:2:1: not valid YAML: a tab, expected spaces",
    b"id: a\nb: x\x00y\n": "w.yaml:2:5: not valid YAML: control character '\\x00', expected it esc",
    b"id: !python/name x\n": "w.yaml:1:5: not valid YAML: could not determine a constructor",
    b"id: *missing\n": "w.yaml:1:5: not valid YAML: found undefined alias",
    b"[" * 5000: "w.yaml: not valid YAML: ",
    b"id: a\nlimits: {time_s: 1,\n  time_s: 2}\n": "w.yaml:3: limits.time_s: given twice, expected "
    "once; the first is at line 2",
    SHORT.encode() + b"---\n" + SHORT.encode(): "w.yaml:4: a second document, expected one a file",
}


@pytest.mark.parametrize("content", WRONG_FILES, ids=WRONG_FILES.values())
def test_wrong_file(write: Write, content: bytes) -> None:
    write("w.yaml", content)
    (fault,) = faults("w.yaml")
    assert fault.startswith(WRONG_FILES[content])


def test_each_key_given_twice_is_named(write: Write) -> None:
    write("w.yaml", "id: a\ntests:\n- input: x\n  input: y\nid: b\nid: c\n")
    assert [fault.split(":")[1:3] for fault in faults("w.yaml")] == [
        ["4", " tests[0].input"],
        ["5", " id"],
        ["6", " id"],
    ]


def test_faults_of_a_shared_pool_are_said_once_with_its_own_lines(write: Write) -> None:
    write("pool.yaml", "examples:\n- id: a\n  statement: A\n- {id: b, statment: B, solution: x}\n")
    for name in ("a", "b"):
        write(f"{name}.yaml", f"{SHORT}limits: {{time_s: 0}}\nfew_shot: {{pool: pool.yaml}}")
    assert faults("a.yaml", "b.yaml") == [
        "pool.yaml:2: examples[0].solution: missing, expected a program that solves it",
        "pool.yaml:4: examples[1].statement: missing, expected the task in prose",
        "pool.yaml:4: examples[1].statment: unknown key, did you mean 'statement'?",
        "a.yaml:3: limits.time_s: got 0, expected greater than 0",
        "a.yaml:4: few_shot.pool: pool.yaml has faults, listed too",
        "b.yaml:3: limits.time_s: got 0, expected greater than 0",
        "b.yaml:4: few_shot.pool: pool.yaml has faults, listed too",
    ]


@pytest.mark.parametrize(
    ("pool", "fault"),
    [
        ("examples: []", "p.yaml:1: examples: empty, expected at least 1"),
        ("- a", "p.yaml:1: got ['a'], expected a mapping"),
        ("examples: [", "p.yaml:1:12: not valid YAML"),
        (
            "examples: " + EXAMPLES.replace("b,", "a,"),
            "p.yaml:1: examples: example 'a' comes twice",
        ),
    ],
)
def test_wrong_pool(write: Write, pool: str, fault: str) -> None:
    write("p.yaml", pool)
    write("a.yaml", f"{SHORT}few_shot: {{pool: p.yaml}}")
    assert faults("a.yaml")[0].startswith(fault)


def test_ids_are_unique(write: Write) -> None:
    write("a.yaml", f"id: x\n{SHORT}")
    write("b.yaml", f"{SHORT}\nid: x\n")
    assert faults("a.yaml", "b.yaml") == [
        "b.yaml:4: id: 'x' is the id of a.yaml:1 too, expected its own"
    ]


def test_nothing_to_read(write: Write) -> None:
    write("empty/notes.txt", "x")
    write("pools/pool.yaml", POOL)
    assert faults()[0].startswith("no problems named, expected files")
    assert faults("none.yaml", "*.none", "empty", "pools", "empty/*") == [
        "none.yaml: no such file or directory, no match, expected *.yaml or packages",
        "*.none: no such file or directory, no match, expected *.yaml or packages",
        "empty: no problem here, expected *.yaml or packages",
        "pools: no problem here, expected *.yaml or packages",
        "empty/*: matches no problem, expected *.yaml or packages",
    ]
    with pytest.raises(InputError, match="empty: cannot be read: Is a directory"):
        load_problem("empty")
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read: No such file"):
        load_problem("none.yaml")


def test_a_document_of_another_format_is_named_without_lines() -> None:
    with pytest.raises(InputError, match=r"^set\.jsonl: statement: missing, expected the task"):
        problem_from_document({"id": "a"}, "set.jsonl")


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_give_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"any\.yaml"):
        load_problem(path)
