"""The append-only file that samples and verdicts share."""

import json
from pathlib import Path
from typing import Any

import pytest

from hydragen_tree.errors import InputError, OutputError
from hydragen_tree.judge.verdict_file import VerdictFile
from hydragen_tree.sample.jsonl_file import JsonlFile


def parse(raw: bytes) -> dict[str, Any] | None:
    try:
        return dict(json.loads(raw))
    except ValueError:
        return None


def test_lines_come_back_and_a_torn_one_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    file = JsonlFile(path, "line")
    for i in range(3):
        file.append({"i": i})
    file.close()
    path.write_bytes(path.read_bytes() + b'{"i": 3')
    file = JsonlFile(path, "line", resume=True)
    assert list(file.read(parse)) == [(i + 1, {"i": i}) for i in range(3)]
    assert file.torn
    file.repair()
    file.append({"i": 3})
    file.close()
    assert [json.loads(line)["i"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]


def test_a_broken_line_in_the_middle_is_no_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"i": 0}\n{"i"\n{"i": 2}\n')
    before = path.read_bytes()
    file = JsonlFile(path, "line", resume=True)
    with pytest.raises(InputError, match=r"lines.jsonl:2: not a line; was the file altered"):
        list(file.read(parse))
    file.close()
    assert path.read_bytes() == before


def test_a_second_run_is_kept_away_and_removes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    file = JsonlFile(path, "line")
    with pytest.raises(InputError, match="another run is writing it"):
        JsonlFile(path, "line", resume=True)
    file.append({})
    file.close()
    assert path.read_text() == "{}\n"


@pytest.mark.parametrize("keep", [True, False])
def test_an_empty_file_of_ours_stays_only_where_wanted(tmp_path: Path, keep: bool) -> None:
    path = tmp_path / "lines.jsonl"
    JsonlFile(path, "line").close(keep=keep)
    assert path.exists() == keep


def test_a_full_disk_says_what_is_safe() -> None:
    file = JsonlFile(Path("/dev/full"), "verdict")
    with pytest.raises(OutputError, match=r"/dev/full: No space left on device; nothing is lost$"):
        file.append({})
    file.close()


class Nothing:
    def add(self, record: Any, /) -> None: ...


def test_verdicts_of_another_file_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes")
    with pytest.raises(InputError, match="holds no verdicts; is it another file"):
        VerdictFile(path, Nothing(), resume=True)
    assert path.read_text() == "my notes"


def test_verdicts_continue_after_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    line = {"task_id": "a", "sample_index": 0, "solution": "x", "verdict": "AC"}
    path.write_text(json.dumps(line) + "\n" + '{"task_id": "a", "sam')
    with VerdictFile(path, Nothing(), resume=True) as verdicts:
        assert verdicts.has("a", 0, "x")
        assert verdicts.accepted == {"a": 1}
        with pytest.raises(InputError, match="was another program"):
            verdicts.has("a", 0, "y")
        verdicts.write({**line, "sample_index": 1})
    assert [json.loads(text)["sample_index"] for text in path.read_text().splitlines()] == [0, 1]
