"""A batch of OpenAI's requests, sampled, and its answers in the format of their output."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hydragen_cli.program import load
from hydragen_tree.errors import InputError


def hydragen(command: str, *args: str) -> int:
    code = load(command).main(list(args), prog_name=f"hydragen {command}", standalone_mode=False)
    return code or 0


def write_batch(**second: Any) -> None:
    body = {"prompt": "def f", "max_tokens": 5, "temperature": 0.5, "n": 3, "stop": "\n", "seed": 3}
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/completions", "body": {**body, **more}}
        for name, more in (("one", {}), ("two", {"prompt": "def g", **second}))
    ]
    Path("batch.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_batch_comes_back_as_answers(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_batch()
    assert hydragen("sample", "--prompts", "batch.jsonl", "-o", "s.jsonl", "--max-tokens", "4") == 0
    settings = json.loads(Path("s.jsonl.manifest.json").read_text())
    assert settings["n"] == 3
    expected = {"max_tokens": 4, "temperature": 0.5, "stop": ["\n"], "seed": 3}  # the option wins
    assert expected.items() <= settings["settings"].items()
    capsys.readouterr()
    assert hydragen("export", "s.jsonl", "--format", "openai-batch-completions") == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {answer["custom_id"] for answer in answers} == {"one", "two"}
    samples = [json.loads(line) for line in Path("s.jsonl").read_text().splitlines()]
    for answer in answers:
        body = answer["response"]["body"]
        assert (answer["error"], body["model"]) == (None, "tiny")
        texts = {
            s["sample_index"]: s["completion"] for s in samples if s["task_id"] == body["id"][5:]
        }
        assert [choice["text"] for choice in body["choices"]] == [texts[i] for i in range(3)]


def test_what_requests_ask_for_is_shown_and_kept_with_its_source(
    own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_batch()
    given = ["--prompts", "batch.jsonl", "--max-tokens", "4"]
    assert hydragen("sample", *given, "--dry-run") == 0
    shown = dict(line.split(None, 1) for line in capsys.readouterr().err.splitlines() if line)
    asked = {"--samples": "3", "--temperature": "0.5", "--stop": r"'\n'", "--seed": "3"}
    for flag, value in asked.items():
        assert shown[flag].split(None, 1) == [value, "requests in batch.jsonl"]
    assert shown["--max-tokens"].split() == ["4", "option"]
    assert shown["--top-p"].split() == ["1", "default"]
    assert hydragen("sample", *given, "-o", "s.jsonl") == 0
    kept = json.loads(Path("s.jsonl.manifest.json").read_text())["sessions"][0]["options"]
    expected = {flag: [value, "requests in batch.jsonl"] for flag, value in asked.items()}
    assert expected.items() <= kept.items()
    write_batch(temperature=-1)
    Path("batch.jsonl").write_text(Path("batch.jsonl").read_text().splitlines()[1])
    with pytest.raises(InputError, match=r"temperature.*\(set by requests in batch\.jsonl\)"):
        hydragen("sample", *given, "-o", "t.jsonl")


def test_answers_hold_what_openai_s_reader_asks_for(
    own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_batch()
    assert hydragen("sample", "--prompts", "batch.jsonl", "-o", "s.jsonl", "--logprobs") == 0
    manifest = json.loads(Path("s.jsonl.manifest.json").read_text())
    (read,) = manifest["tasks"]["one"]["prompt_tokens"]
    samples = [json.loads(line) for line in Path("s.jsonl").read_text().splitlines()]
    drawn = {s["sample_index"]: s for s in samples if s["task_id"] == "one"}
    written = sum(sample["n_tokens"] for sample in drawn.values())
    for is_chat, format_ in ((True, "openai-batch"), (False, "openai-batch-completions")):
        capsys.readouterr()
        assert hydragen("export", "s.jsonl", "--format", format_) == 0
        answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        (body,) = (a["response"]["body"] for a in answers if a["custom_id"] == "one")
        assert body["usage"] == {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }
        started = datetime.fromtimestamp(body["created"], UTC).isoformat()
        assert started == manifest["sessions"][0]["started"]
        for choice in body["choices"]:
            sample = drawn[choice["index"]]
            names = [f"token_id:{number}" for number in sample["token_ids"]]
            said = choice["logprobs"]
            if is_chat:
                found = [(each["token"], each["logprob"]) for each in said["content"]]
            else:
                found = [*zip(said["tokens"], said["token_logprobs"], strict=True)]
            assert found == [*zip(names, sample["token_logprobs"], strict=True)]


def test_requests_that_differ_are_named(own_home: Path) -> None:
    write_batch(temperature=0.7)
    with pytest.raises(
        InputError, match=r"line 2 asks for temperature 0\.7, line 1 for 0\.5: a run"
    ):
        hydragen("sample", "--prompts", "batch.jsonl", "-o", "s.jsonl")
    given = ["--temperature", "0.6", "--dry-run", "--quiet"]
    assert hydragen("sample", "--prompts", "batch.jsonl", *given) == 0
    write_batch(n=None)
    with pytest.raises(InputError, match="line 2 asks for n none, line 1 for 3: a run"):
        hydragen("sample", "--prompts", "batch.jsonl", "-o", "s.jsonl")
