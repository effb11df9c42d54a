"""Plain prompts, chats and token ids, one JSON line each; requests of OpenAI's batches too."""

import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hydragen_kernels.arrays import Int32
from hydragen_tree.errors import InputError, Setting
from hydragen_tree.prompt.requests import is_request, parse_request
from hydragen_tree.prompt.tokenising import packed

_MAX_ID = 2**31 - 1
Messages = list[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class PromptLines:
    """What stands in lines of prompts.

    Args:
        prompts: (task id, prompt) of every line, as `prompts_from_sources` takes them.
        asked: what requests ask for: name of a setting to its different values, each with the
            first line that has it; None where a request does not say.
    """

    prompts: list[tuple[str, Any]]
    asked: Mapping[str, Mapping[Hashable, int]]


def read_prompt_lines(lines: Iterable[str], source: str | None = None) -> PromptLines:
    """Reads `{"prompt": text | messages | token ids, "task_id": ...}` lines, and requests.

    Blank lines and further keys are passed over; without an id, prompt i is called `prompt-i`.

    Args:
        lines: with or without their ends.
        source: the file, as messages name it.

    Raises:
        InputError: lines are broken (all are named, by number), or there is none.
    """
    reader = PromptLineReader(source)
    for line in lines:
        reader.take(line)
    return reader.finish()


class PromptLineReader:
    """Reads what `read_prompt_lines` does, line by line.

    Args:
        source: the file, as messages name it.

    Attributes:
        prompts: (task id, prompt) of every good line so far.
        asked: what requests ask for so far, as `PromptLines` has it.
        faults: what is wrong with the other lines, as an error takes it.
    """

    def __init__(self, source: str | None = None) -> None:
        self._source, self._number = source, 0
        self.prompts: list[tuple[str, Any]] = []
        self._ids: set[str] = set()
        self.asked: dict[str, dict[Hashable, int]] = {}
        self._first_request: int | None = None
        self.faults: list[str] = []

    def take(self, line: str) -> None:
        """Reads the next line."""
        self._number += 1
        if not line.strip():
            return
        try:
            self._take(_object(line))
        except ValueError as error:
            self._refuse(str(error))

    def take_bytes(self, line: bytes) -> None:
        """Reads the next line, as it stands in a file."""
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            self._number += 1
            self._refuse("not UTF-8 text")
        else:
            self.take(text)

    def _refuse(self, why: str) -> None:
        source = "" if self._source is None else f" {self._source}"
        self.faults += ["\n", Setting("prompts"), f"{source}: line {self._number}: {why}"]

    def _take(self, record: dict[str, Any]) -> None:
        request: dict[str, Hashable] | None = None
        if is_request(record):
            named, content, request = parse_request(record)
        elif "prompt" in record:
            named, content = record.get("task_id", f"prompt-{len(self.prompts)}"), record["prompt"]
        else:
            raise ValueError('expected an object with the key "prompt", or a request')
        task_id = _checked_id(named, "task_id" if request is None else "custom_id")
        if task_id in self._ids:
            raise ValueError(f"task_id {task_id!r} comes twice, expected ids that differ")
        self.prompts.append((task_id, checked_content(content)))
        self._ids.add(task_id)
        if request is not None:
            self._ask(request)

    def _ask(self, request: Mapping[str, Hashable]) -> None:
        """Takes note of the settings of a request; those before did not ask for new ones."""
        for name in request:
            first = self._first_request
            before: dict[Hashable, int] = {} if first is None else {None: first}
            self.asked.setdefault(name, before)
        for name, values in self.asked.items():
            values.setdefault(request.get(name), self._number)
        if self._first_request is None:
            self._first_request = self._number

    def check(self) -> None:
        """Raises an error that names all bad lines so far, if there are any."""
        if self.faults:
            raise InputError(*self.faults[1:])

    def finish(self) -> PromptLines:
        """All of it.

        Raises:
            InputError: see `read_prompt_lines`.
        """
        self.check()
        if not self.prompts:
            expected = 'expected lines such as {"prompt": "..."}'
            raise InputError(f"no prompts, {expected}", setting="prompts", value=self._source)
        return PromptLines(self.prompts, self.asked)


def _object(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line.rstrip())
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error.msg} at column {error.colno}") from None
    except RecursionError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    if not isinstance(record, dict):
        raise ValueError('expected an object with the key "prompt"')
    return record


def _checked_id(named: Any, key: str) -> str:
    if not isinstance(named, str) or not named:
        raise ValueError(f"{key}: got {named!r}, expected text")
    return named


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
