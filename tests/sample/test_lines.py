"""Reading samples: three formats, broken lines named, nothing lost."""

import io
import json
from collections.abc import Iterable

import pytest

from hydragen_tree.sample.lines import BrokenLine, SampleLine, read_samples


def read(*lines: object) -> list[SampleLine | BrokenLine]:
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    return list(read_samples(io.BytesIO(text.encode())))


def samples(items: Iterable[SampleLine | BrokenLine]) -> list[SampleLine]:
    assert all(isinstance(item, SampleLine) for item in items)
    return [item for item in items if isinstance(item, SampleLine)]


def test_our_own_lines_keep_every_key() -> None:
    record = {
        "task_id": "two-sum",
        "sample_index": 17,
        "prompt_variant": 1,
        "completion": "```python\nprint(1)\n```",
        "solution": "print(1)\n",
        "n_tokens": 9,
        "anything": {"else": None},
    }
    [line] = samples(read(record))
    assert line.record == record
    assert (line.task_id, line.sample_index, line.prompt_variant) == ("two-sum", 17, 1)
    assert line.program(starter="unused") == "print(1)\n"


def test_human_eval_lines_continue_their_prompt_and_are_numbered_by_task() -> None:
    lines = samples(
        read(
            {"task_id": "HumanEval/0", "completion": "    return 1\n"},
            {"task_id": "HumanEval/1", "completion": "    return 2\n"},
            {"task_id": "HumanEval/0", "completion": "    return 3\n"},
        )
    )
    assert [(line.task_id, line.sample_index) for line in lines] == [
        ("HumanEval/0", 0),
        ("HumanEval/1", 0),
        ("HumanEval/0", 1),
    ]
    assert lines[2].program("def f():\n") == "def f():\n    return 3\n"


def test_evalplus_lines_are_whole_programs_or_completions() -> None:
    whole, rest = samples(
        read(
            {"task_id": "Mbpp/2", "solution": "def f(): return 1"},
            {"task_id": "Mbpp/2", "solution": None, "completion": " return 1"},
        )
    )
    assert whole.program("def f():") == "def f(): return 1"
    assert rest.program("def f():") == "def f(): return 1"


def test_an_empty_program_is_a_sample() -> None:
    [line] = samples(read({"task_id": 11, "solution": ""}))
    assert (line.task_id, line.program("x")) == ("11", "")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{'task_id': 'a'}", "not JSON"),
        ("[1, 2]", "JSON object"),
        ('{"solution": "x"}', "`task_id`"),
        ('{"task_id": "", "solution": "x"}', "`task_id`"),
        ('{"task_id": true, "solution": "x"}', "`task_id`"),
        ('{"task_id": "a"}', "a: no code"),
        ('{"task_id": "a", "solution": null}', "a: no code"),
        ('{"task_id": "a", "solution": ["x"]}', "`solution`: expected a string"),
        ('{"task_id": "a", "completion": 3}', "`completion`: expected a string"),
        ('{"task_id": "a", "solution": "", "sample_index": -1}', "`sample_index`"),
        ('{"task_id": "a", "solution": "", "sample_index": 1.5}', "`sample_index`"),
        ('{"task_id": "a", "solution": "", "prompt_variant": "0"}', "`prompt_variant`"),
        ("[" * 100_000, "not JSON"),
        ("9" * 10_000, "not JSON"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_broken_line_is_named_and_the_rest_is_read(line: str, reason: str) -> None:
    good = {"task_id": "a", "solution": "print(1)"}
    first, broken, last = read(good, line, good)
    assert isinstance(first, SampleLine)
    assert isinstance(last, SampleLine)
    assert last.sample_index == 1
    assert isinstance(broken, BrokenLine)
    assert broken.line_number == 2
    assert reason in broken.reason
    assert str(broken).startswith("line 2: ")
    assert len(str(broken)) < 200


def test_what_is_shown_of_a_broken_line_cannot_act_on_a_terminal() -> None:
    [broken] = read("\x1b]0;title\x07\x1b[2J oops\r\u2028more")
    assert str(broken).isprintable()
    assert str(broken).endswith("oops more")


def test_a_torn_last_line_is_called_that() -> None:
    stream = io.BytesIO(b'{"task_id": "a", "solution": "x"}\n{"task_id": "a", "solu')
    good, torn = read_samples(stream)
    assert isinstance(good, SampleLine)
    assert isinstance(torn, BrokenLine)
    assert "cut off" in torn.reason


def test_bytes_that_are_not_utf8_break_their_line_only() -> None:
    stream = io.BytesIO(
        b'{"task_id": "a", "solution": "\xff"}\n{"task_id": "a", "solution": "y"}\n'
    )
    broken, good = read_samples(stream)
    assert isinstance(broken, BrokenLine)
    assert "UTF-8" in broken.reason
    assert isinstance(good, SampleLine)


def test_blank_lines_a_byte_order_mark_and_crlf_are_harmless() -> None:
    stream = io.BytesIO(b'\xef\xbb\xbf{"task_id": "a", "solution": "x"}\r\n\r\n   \n')
    [line] = read_samples(stream)
    assert isinstance(line, SampleLine)


def test_lines_come_as_soon_as_they_are_there() -> None:
    def slow() -> Iterable[str]:
        yield '{"task_id": "a", "solution": "x"}\n'
        raise AssertionError("read ahead")

    assert isinstance(next(read_samples(slow())), SampleLine)
