"""Files that other tools made are read by the names that they use, as those tools write them."""

import json
import sys
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.results.run_files import find_run, read_lines
from hydragen_tree.sample.foreign_files import open_samples
from hydragen_tree.sample.lines import BrokenLine, SampleLine

DOC = {"task_id": "HumanEval/53", "prompt": "def add(x, y):\n", "entry_point": "add"}
RIGHT, WRONG = "    return x + y\n", "    return x - y\n"
LM_EVAL = {
    "doc_id": 53,
    "doc": DOC,
    "target": "check(add)",
    "arguments": {"gen_args_0": {"arg_0": "p", "arg_1": {"until": []}}},
    "resps": [[RIGHT, WRONG]],
    "filtered_resps": [[DOC["prompt"] + RIGHT, DOC["prompt"] + WRONG]],
    "filter": "create_test",
    "pass@1": 0.5,
}


def inspect_sample(epoch: int, content: Any, **more: Any) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": content}, "stop_reason": "stop"}
    output = {"model": "m", "choices": [choice], "completion": content}
    return {"id": "HumanEval/53", "epoch": epoch, "input": "x", "output": output, **more}


INSPECT = [
    inspect_sample(2, "one"),
    inspect_sample(1, [{"type": "reasoning", "reasoning": "?"}, {"type": "text", "text": "two"}]),
    inspect_sample(3, "attachment://ab", attachments={"ab": "three"}),
]


def openai(custom_id: str, *choices: dict[str, Any]) -> dict[str, Any]:
    body = {"object": "chat.completion", "choices": list(choices)}
    return {"id": "b", "custom_id": custom_id, "response": {"status_code": 200, "body": body}}


def say(text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}}


def write(path: Path, content: Any) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in content))
    else:
        path.write_text(json.dumps(content, indent=2))
    return path


def read(path: Path) -> list[tuple[str, int, str | None, str | None]]:
    found = [*read_lines(path)]
    assert not [str(line) for line in found if isinstance(line, BrokenLine)]
    return [
        (line.task_id, line.sample_index, line.completion, line.solution)
        for line in found
        if isinstance(line, SampleLine)
    ]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "codegeneration_output.json",
            [{"question_id": "1873_A", "question_content": "?", "code_list": ["a", "b"]}],
            [("1873_A", 0, None, "a"), ("1873_A", 1, None, "b")],
        ),
        (
            "samples_humaneval_2026.jsonl",
            [LM_EVAL],
            [
                ("HumanEval/53", 0, None, DOC["prompt"] + RIGHT),
                ("HumanEval/53", 1, None, DOC["prompt"] + WRONG),
            ],
        ),
        (
            "samples_unfiltered.jsonl",
            [{"doc_id": 7, "doc": {}, "resps": [["a", "b"]], "filtered_resps": ["a"]}],
            [("7", 0, "a", None), ("7", 1, "b", None)],
        ),
        (
            "mbpp.jsonl",
            [{"doc_id": 0, "doc": {"task_id": 11}, "resps": [["a"]], "filtered_resps": [["b"]]}],
            [("11", 0, None, "b")],
        ),
        (
            "log.json",
            {"version": 2, "status": "success", "eval": {"model": "m"}, "samples": INSPECT},
            [
                ("HumanEval/53", 1, "one", None),
                ("HumanEval/53", 0, "two", None),
                ("HumanEval/53", 2, "three", None),
            ],
        ),
        (
            "batch_output.jsonl",
            [openai("a", say("x"), say("y")), openai("b#4", say("z")), openai("c", {"text": "t"})],
            [("a", 0, "x", None), ("a", 1, "y", None), ("b", 4, "z", None), ("c", 0, "t", None)],
        ),
        (
            "eval_results.json",
            {"date": "", "eval": {"HumanEval/0": [{"task_id": "HumanEval/0", "solution": "s"}]}},
            [("HumanEval/0", 0, None, "s")],
        ),
        (
            "generations_humaneval.json",
            [["a", "b"], [], ["c"]],
            [
                ("HumanEval/0", 0, None, "a"),
                ("HumanEval/0", 1, None, "b"),
                ("HumanEval/2", 0, None, "c"),
            ],
        ),
        ("generations_mbpp.json", [["a"]], [("Mbpp/11", 0, None, "a")]),
        (
            "apps_codes.json",
            {"10": ["b"], "2": ["a"]},
            [("apps-2", 0, None, "a"), ("apps-10", 0, None, "b")],
        ),
    ],
)
def test_a_tools_own_file_is_read(tmp_path: Path, name: str, content: Any, expected: Any) -> None:
    path = write(tmp_path / name, content)
    assert read(path) == expected
    assert find_run(path).samples == path


def test_a_log_of_inspect_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log.eval"
    with ZipFile(path, "w", ZIP_DEFLATED) as log:
        log.writestr("header.json", "{}")
        for sample in INSPECT:  # ids with a slash are folders
            name = f"samples/{sample['id']}_epoch_{sample['epoch']}.json"
            log.writestr(name, json.dumps(sample))
    assert [row[1:3] for row in read(path)] == [(1, "one"), (0, "two"), (2, "three")]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="this Python reads zstd")
def test_a_log_that_is_compressed_with_zstd_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zipfile_zstd", None)
    path = tmp_path / "log.eval"
    with ZipFile(path, "w") as log:
        log.writestr("samples/a_epoch_1.json", "{}")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 10] = 93  # the method, in the directory at the end
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"compressed with zstd.*inspect log convert --to json"):
        open_samples(path)


def test_programs_by_position_need_the_name_of_their_data_set(tmp_path: Path) -> None:
    path = write(tmp_path / "generations.json", [["a"]])
    with pytest.raises(InputError, match=r"name the file after it: generations_humaneval\.json"):
        open_samples(path)


def test_a_json_file_of_lines_is_one(tmp_path: Path) -> None:
    path = tmp_path / "samples.json"
    path.write_text('{"task_id": "a", "solution": "x"}\n{"task_id": "a", "solution": "y"}\n')
    assert [row[3] for row in read(path)] == ["x", "y"]
    path.write_text('{"task_id": "a", "solution": "x"}')
    assert [row[3] for row in read(path)] == ["x"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"question_id": 5, "code_list": [None]}, "5: no code"),
        ({"question_id": "a", "code_list": [5]}, "`solution`: expected a string"),
        ({"id": "a", "epoch": 1, "output": {"choices": []}}, "a: no code"),
        ({"custom_id": "a", "response": None}, "a: no code"),
        (
            {"custom_id": "a", "response": None, "error": {"message": "timed\nout"}},
            "a: no code: timed out",
        ),
        (
            {"custom_id": "a", "response": {"body": {"error": {"message": "too long"}}}},
            "a: no code: too long",
        ),
        (
            {"custom_id": "a", "response": {"body": {"object": "error", "message": "too long"}}},
            "a: no code: too long",
        ),
        (inspect_sample(1, "", error={"message": "no such model"}), "53: no code: no such model"),
        ({"doc": "?", "resps": [["x"]]}, "expected the key `task_id`"),
    ],
)
def test_what_holds_no_program_is_a_broken_line(
    tmp_path: Path, record: dict[str, Any], reason: str
) -> None:
    [found] = read_lines(write(tmp_path / "x.jsonl", [record]))
    assert isinstance(found, BrokenLine)
    assert reason in str(found)


def test_answers_that_lm_eval_filtered_in_several_ways_count_once(tmp_path: Path) -> None:
    """As `filter_list` with two filters logs them: all documents, and then all again."""
    other = {"doc_id": 54, "doc": {"task_id": "HumanEval/54"}, "filter": "create_test"}
    other |= {"resps": [["a"]], "filtered_resps": [["b"]]}
    first = [LM_EVAL, other]
    again = [record | {"filter": "take_first", "filtered_resps": ["c"]} for record in first]
    found = read(write(tmp_path / "samples_x.jsonl", [*first, *again]))
    assert [row[:2] for row in found] == [
        ("HumanEval/53", 0),
        ("HumanEval/53", 1),
        ("HumanEval/54", 0),
    ]
    # A second run of the same task, joined to the first, has the same filter and is more samples.
    assert len(read(write(tmp_path / "samples_y.jsonl", [*first, *first]))) == 6


def places(value: Any, *above: Any) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a record."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    for key, part in value.items() if isinstance(value, dict) else ():
        yield (*above, key)
        yield from places(part, *above, key)


@pytest.mark.parametrize("wrong", [None, 1, True, "s", [], {}, [None], ["s"], [{}], {"a": 1}])
def test_whatever_stands_in_a_record_breaks_no_more_than_its_line(
    tmp_path: Path, wrong: Any
) -> None:
    records = [INSPECT[1], INSPECT[2], LM_EVAL, openai("a", say("x")), openai("a", {"text": "t"})]
    lines = []
    for record in records:
        for *above, last in places(record):
            line = json.loads(json.dumps(record))
            reduce(getitem, above, line)[last] = wrong
            lines.append(line)
    found = [
        *read_lines(write(tmp_path / "x.jsonl", [*lines, {"task_id": "last", "solution": ""}]))
    ]
    assert isinstance(found[-1], SampleLine)
    assert found[-1].task_id == "last"
