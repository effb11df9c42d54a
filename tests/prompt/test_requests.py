"""Requests of OpenAI's batch format among the lines of prompts."""

import json
from typing import Any

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.prompt.prompt_lines import read_prompt_lines

HI = {"role": "user", "content": "Hi"}


def request(custom_id: str, url: str = "/v1/chat/completions", **body: Any) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def test_requests_are_prompts_and_say_how_they_are_sampled() -> None:
    parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
    more = {"model": "gpt-x", "user": "me", "stream": False, "logit_bias": {}, "seed": None}
    lines = [
        request("a", messages=[HI], max_completion_tokens=9, stop="END", n=3, **more),
        request(
            "b", messages=[{"role": "user", "content": parts}], max_tokens=9, stop=["END"], n=3
        ),
        request("c", "/v1/completions", prompt="def f", max_tokens=9, stop=["END"], n=3),
        request("d", "/v1/completions", prompt=["def g"], max_tokens=9, stop=["END"], n=3),
        json.dumps({"task_id": "plain", "prompt": "x"}),
    ]
    found = read_prompt_lines(lines)
    assert found.prompts == [
        ("a", [HI]),
        ("b", [HI]),
        ("c", "def f"),
        ("d", "def g"),
        ("plain", "x"),
    ]
    assert found.asked == {"max_tokens": {9: 1}, "stop": {("END",): 1}, "n": {3: 1}}


def test_values_that_differ_are_kept_with_their_first_line() -> None:
    lines = [
        request("a", messages=[HI], temperature=0.5, logprobs=True),
        request("b", messages=[HI], temperature=1, logprobs=True),
        request("c", messages=[HI], temperature=1),
    ]
    asked = read_prompt_lines(lines).asked
    assert asked == {"temperature": {0.5: 1, 1: 2}, "logprobs": {True: 1, None: 3}}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (request("a", messages=[HI], tools=[{}]), r"body: tools .*: cannot be done"),
        (request("a", messages=[HI], frequency_penalty=0.5), "frequency_penalty 0.5: cannot be"),
        (request("a", messages=[HI], thinking=True), "body: thinking: is not known"),
        (request("a", messages=[HI], n=True), "body: n: got True, expected a number"),
        (request("a", messages=[HI], seed=1.5), "body: seed: got 1.5"),
        (request("a", messages=[HI], stop=5), "body: stop: got 5, expected a list of str"),
        (request("a", messages=[HI], logprobs="yes"), "body: logprobs: is not known"),
        (request("a", prompt="x"), "body: expected the key 'messages'"),
        (request("a", "/v1/embeddings", input="x"), "url: got '/v1/embeddings'"),
        (request("a", "/v1/completions", prompt=["x", "y"]), "holds several"),
        (request("a", messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "no text"),
        (request("", messages=[HI]), "custom_id: got '', expected text"),
        ('{"custom_id": "a", "body": 5}', "body: got int, expected an object"),
        ('{"custom_id": "a", "method": "GET", "body": {}}', "method: got 'GET'"),
    ],
)
def test_what_cannot_be_done_is_refused(line: str, reason: str) -> None:
    with pytest.raises(InputError, match=f"line 1: .*{reason}"):
        read_prompt_lines([line])
