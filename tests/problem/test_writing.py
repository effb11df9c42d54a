"""Writing problem files: every reader gets back what was written, and people can read it."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from hydragen_tree.problem.writing import to_yaml, with_time_limit

texts = st.one_of(
    st.text(),
    st.text(alphabet=" \t\n-#:'\"ab|>%@{}[],&*!?0", max_size=40),
    st.lists(st.text(alphabet=" ab1\t", max_size=6), max_size=8).map("\n".join),
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(texts.filter(bool), st.integers()), inner, max_size=4),
    ),
    max_leaves=12,
)
keys = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)


def load(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


@given(st.dictionaries(keys, values, min_size=1, max_size=4))
def test_whatever_is_written_is_read_back(document: dict[str, Any]) -> None:
    assert load(to_yaml(document)) == document


@pytest.mark.parametrize(
    "text",
    [
        "a\nb\n",
        "a\nb",
        "a\nb\n\n\n",
        "  indented\nfirst\n",
        "\n\nempty first\n",
        "trailing space \n\t tab\n",
        "x" * 300 + "\n",
        "# no comment\n--- no document\n...\n",
        "carriage\r\nreturn\n",
        "bell \x07\n\x85 \u2028 \ufeff\n",
        "\n",
        "",
        "yes",
        "null",
        "1e3",
        "Not: a key",
        "emoji \U0001f600\nline\n",
    ],
    ids=repr,
)
def test_text_is_kept_to_the_last_space(text: str) -> None:
    document = {"statement": text, "tests": [{"input": text, "output": text}], "texts": [text]}
    assert load(to_yaml(document)) == document


def test_floats_are_floats_for_any_reader() -> None:
    text = to_yaml({"tol": 1e-06, "big": 1e300, "inf": math.inf, "low": -math.inf, "n": math.nan})
    assert text.splitlines()[0] == "tol: 1.0e-06"
    assert math.isnan(load(text)["n"])


def test_it_reads_well() -> None:
    document = {
        "id": "two-sum",
        "title": "Two sum: again",
        "statement": "Add.\n\nPrint the sum.\n",
        "limits": {"time_s": 2, "memory_mib": 256},
        "checker": {"type": "float", "abs_tol": 1e-6},
        "tests": [
            {"input": "1 2\n", "output": "3\n", "sample": True},
            {"input": "1\n2\n3\n", "output": "6\n"},
            {"call": [[1, 2], {"a": None}], "expected": -1.5},
        ],
        "submissions": [{"verdict": "WA", "code": "print(1)\nprint(2)\nprint(3)\n"}],
    }
    assert (
        to_yaml(document)
        == """\
id: two-sum
title: "Two sum: again"
statement: |
  Add.

  Print the sum.
limits: {time_s: 2, memory_mib: 256}
checker: {type: float, abs_tol: 1.0e-06}
tests:
- {input: "1 2\\n", output: "3\\n", sample: true}
- input: |
    1
    2
    3
  output: "6\\n"
- {call: [[1, 2], {a: null}], expected: -1.5}
submissions:
- verdict: WA
  code: |
    print(1)
    print(2)
    print(3)
"""
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("id: a\nlimits: {time_s: 2, memory_mib: 9}  # why\ntests: []\n",
         "id: a\nlimits: {time_s: 0.5, memory_mib: 9}  # why\ntests: []\n"),
        ("limits:\n  memory_mib: 9\n  time_s: 1e1\n", "limits:\n  memory_mib: 9\n  time_s: 0.5\n"),
        ("limits:\n  memory_mib: 9\nid: a\n", "limits:\n  time_s: 0.5\n  memory_mib: 9\nid: a\n"),
        ("limits: {memory_mib: 9}\n", "limits: {time_s: 0.5, memory_mib: 9}\n"),
        ("limits: {}\nid: a\n", "limits: {time_s: 0.5}\nid: a\n"),
        ("id: a\nstatement: |\n  é\n\n", "id: a\nlimits: {time_s: 0.5}\nstatement: |\n  é\n\n"),
    ],
    ids=["flow", "block", "block-without", "flow-without", "empty", "no-limits"],
)  # fmt: skip
def test_a_time_limit_is_changed_in_place(before: str, after: str) -> None:
    assert with_time_limit(before, 0.5) == after
