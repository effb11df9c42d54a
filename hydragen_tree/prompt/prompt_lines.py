"""Plain prompts, chats and token ids, one JSON line each."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hydragen_kernels.arrays import Int32
from hydragen_tree.errors import InputError, Setting
from hydragen_tree.prompt.tokenising import packed

_MAX_ID = 2**31 - 1
Messages = list[Mapping[str, Any]]


def read_prompt_lines(lines: Iterable[str]) -> list[tuple[str, Any]]:
    """Reads `{"prompt": text | messages | token ids, "task_id": ...}` lines.

    Blank lines and further keys are passed over; without an id, prompt i is called `prompt-i`.

    Returns:
        (task id, prompt) of every line, as `prompts_from_sources` takes them.

    Raises:
        InputError: lines are broken (all are named, by number), or there is none.
    """
    found: dict[str, Any] = {}
    faults: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            task_id, content = _parse_line(line, default=f"prompt-{len(found)}")
            if task_id in found:
                raise ValueError(f"task_id {task_id!r} comes twice, expected ids that differ")
            found[task_id] = content
        except ValueError as error:
            faults += ["\n", Setting("prompts"), f": line {number}: {error}"]
    if faults:
        raise InputError(*faults[1:])
    if not found:
        raise InputError('no prompts, expected lines such as {"prompt": "..."}', setting="prompts")
    return list(found.items())


def _parse_line(line: str, default: str) -> tuple[str, Any]:
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"not valid JSON: {error}") from None
    if not isinstance(record, dict) or "prompt" not in record:
        raise ValueError('expected an object with the key "prompt"')
    task_id = record.get("task_id", default)
    if not isinstance(task_id, str) or not task_id:
        raise ValueError(f"task_id: got {task_id!r}, expected text")
    return task_id, checked_content(record["prompt"])


def checked_content(content: Any) -> str | Messages | Int32:
    """Text, messages or token ids; a ValueError for anything else, and for what is empty."""
    expected = "expected text, messages with a role each, or token ids from 0 on"
    if not isinstance(content, Sequence | np.ndarray) or isinstance(content, bytes):
        raise ValueError(f"got {type(content).__name__}, {expected}")
    if not len(content):
        raise ValueError(f"the prompt is empty, {expected}")
    if isinstance(content, str):
        return content
    if all(isinstance(item, Mapping) and isinstance(item.get("role"), str) for item in content):
        return list(content)
    if all((type(i) is int or isinstance(i, np.integer)) and i >= 0 for i in content):
        if max(content) > _MAX_ID:
            raise ValueError(f"token id {max(content)}, expected less than {_MAX_ID + 1}")
        return packed(content)  # Python integers take ten times the memory
    raise ValueError(f"got a list of other things, {expected}")
