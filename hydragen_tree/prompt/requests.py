"""Requests of OpenAI's batch format: a prompt each, and how it is to be sampled.

    {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
     "body": {"messages": [...], "max_tokens": 512, "temperature": 0.8, "n": 100}}

What a body says and no run can do is refused, never passed over; what has no bearing on the samples
(`model`, `user`, ...) is.
"""

from collections.abc import Mapping
from typing import Any

_NUMBER, _WHOLE = (int, float), (int,)
# Name in a body: what it is called here, and its types.
_SETTINGS: dict[str, tuple[str, tuple[type, ...]]] = {
    "max_tokens": ("max_tokens", _WHOLE),
    "max_completion_tokens": ("max_tokens", _WHOLE),
    "temperature": ("temperature", _NUMBER),
    "top_p": ("top_p", _NUMBER),
    "top_k": ("top_k", _WHOLE),
    "min_p": ("min_p", _NUMBER),
    "seed": ("seed", _WHOLE),
    "n": ("n", _WHOLE),
}
_WITHOUT_BEARING = {"messages", "prompt", "model", "user", "metadata", "store", "service_tier"} | {
    "safety_identifier",
    "prompt_cache_key",
    "stream_options",
}
_NEUTRAL: dict[str, tuple[Any, ...]] = {  # values that ask for nothing
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "best_of": (1,),
    "echo": (False,),
    "stream": (False,),
    "suffix": ("",),
    "logit_bias": ({},),
    "tools": ([],),
    "response_format": ({"type": "text"},),
    "top_logprobs": (0,),
}
_URLS = {"/v1/chat/completions": "messages", "/v1/completions": "prompt"}


def is_request(record: Mapping[str, Any]) -> bool:
    """Whether a line is a request of a batch."""
    return "custom_id" in record and "body" in record


def parse_request(record: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Reads a request.

    Args:
        record: a line.

    Returns:
        Its id and its prompt, neither of them checked yet; and the settings that it asks for, by
        the names of `SamplingSettings`, and `n`.

    Raises:
        ValueError: it asks for what a run cannot do.
    """
    body, method = record["body"], record.get("method", "POST")
    if not isinstance(body, Mapping):
        raise ValueError(f"body: got {type(body).__name__}, expected an object")
    if method != "POST":
        raise ValueError(f"method: got {method!r}, expected 'POST'")
    url = record.get("url")
    if url is not None and url not in _URLS:
        raise ValueError(f"url: got {url!r}, expected one of {', '.join(_URLS)}")
    key = _URLS[url] if url else next((key for key in _URLS.values() if key in body), "messages")
    if key not in body:
        raise ValueError(f"body: expected the key {key!r}")
    content = _messages(body[key]) if key == "messages" else _prompt(body[key])
    return record["custom_id"], content, _settings(body)


def _settings(body: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in body.items():
        if value is None or key in _WITHOUT_BEARING:
            continue
        if key in _NEUTRAL:
            if value not in _NEUTRAL[key]:
                raise ValueError(f"body: {key} {value!r}: cannot be done; leave it out")
            continue
        if key in _SETTINGS:
            name, types = _SETTINGS[key]
            if not isinstance(value, types) or isinstance(value, bool):
                raise ValueError(f"body: {key}: got {value!r}, expected a number")
            found[name] = value
        elif key == "stop":
            found["stop"] = (value,) if isinstance(value, str) else _all_of(str, key, value)
        elif key == "stop_token_ids":
            found["stop_tokens"] = _all_of(int, key, value)
        elif key == "logprobs" and isinstance(value, int):
            found["logprobs"] = value is not False  # a number, 0 too, of the completions' kind
        else:
            raise ValueError(f"body: {key}: is not known, and cannot be done; leave it out")
    return found


def _all_of(kind: type, key: str, values: Any) -> tuple[Any, ...]:
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise ValueError(f"body: {key}: got {values!r}, expected a list of {kind.__name__}")
    return tuple(values)


def _messages(messages: Any) -> Any:
    """Messages whose content is text, also where it came in parts."""
    if not isinstance(messages, list):
        return messages
    return [_message(message) if isinstance(message, Mapping) else message for message in messages]


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return dict(message)
    parts = [part for part in content if isinstance(part, Mapping)]
    if len(parts) < len(content) or any(part.get("type") != "text" for part in parts):
        raise ValueError("body: messages: a part of the content is no text")
    return {**message, "content": "".join(str(part.get("text", "")) for part in parts)}


def _prompt(prompt: Any) -> Any:
    """One prompt; the API takes a list of several, too."""
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        if len(prompt) > 1:
            raise ValueError("body: prompt: holds several; give each a request of its own")
        return prompt[0]
    return prompt
