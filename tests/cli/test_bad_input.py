"""Bad input, as real processes: exit code 2, one clear message, nothing overwritten or left."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.forked import run_command

PROBLEM = """
id: doubles
statement: Read an integer n and print 2n.
tests:
  - {input: "3\\n", output: "6\\n", sample: true}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "doubles.yaml").write_text(PROBLEM)
    (folder / "misspelt.yaml").write_text(PROBLEM.replace("statement", "statment"))
    (folder / "blank.yaml").write_text('statement: "  "\n')
    (folder / "null.yaml").write_text(PROBLEM.replace("doubles", "null"))
    (folder / "true.yaml").write_text(PROBLEM.replace("doubles", "true"))
    (folder / "list.yaml").write_text(PROBLEM.replace("doubles", "[null, false]"))
    (folder / "model.gguf").touch()
    (folder / "alien.yaml").write_text("statement: Print \N{SNOWMAN}.\n")
    (folder / "none").mkdir()
    (folder / "empty.jsonl").write_text('{"prompt": ""}\n')
    (folder / "torn.jsonl").write_text('\ufeff{"prompt": "a"}\n{"prompt": "a"\n')
    os.mkfifo(folder / "pipe")
    (folder / "long.jsonl").write_text(json.dumps({"prompt": "word " * 20_000}) + "\n")
    (folder / "taken.jsonl").write_text("somebody's work\n")
    _save_model_that_knows_letters(folder / "letters")
    return folder


def _save_model_that_knows_letters(path: Path) -> None:
    """A configuration and a tokenizer without a token for anything but ASCII; no weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    vocabulary = {chr(code): code - 9 for code in range(9, 127)}
    tokenizer = Tokenizer(models.WordLevel({**vocabulary, "<unk>": 120}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(path)
    LlamaConfig(vocab_size=121, hidden_size=16, num_attention_heads=2).save_pretrained(path)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "no problems: name PROBLEM files, or give prompts with --prompts FILE"),
        (["none"], "none: no problem here, expected *.yaml or packages"),
        (["blank.yaml"], "blank.yaml:1: statement: got '  ', expected text that is not blank"),
        (["--prompts", "empty.jsonl"], "--prompts empty.jsonl: line 1: the prompt is empty, expec"),
        (["--prompts", "torn.jsonl"], "torn.jsonl: line 2: not valid JSON: Expecting ',' delimit"),
        (["doubles.yaml", "-o", "pipe", "--resume"], "--resume: only a file can be resumed; nam"),
        (["doubles.yaml", "--force"], "--force: only a file can be started anew; name one with"),
        (["null.yaml"], "null.yaml:2: id: got null, expected text\n"),
        (["true.yaml"], "true.yaml:2: id: got true, expected text (put it in quotes)\n"),
        (["list.yaml"], "list.yaml:2: id: got [null, false], expected text\n"),
        (["doubles.yaml", "--stop", ""], "--stop '': expected text that is not empty\n"),
        (["doubles.yaml", "--stop-token", ""], "--stop-token '': expected text that is not empty,"),
        (["doubles.yaml", "--dtype", "float8"], "Invalid value for '--dtype': 'float8' is not one"),
        (["doubles.yaml", "--revision", "x"], "--revision x: tiny lies on this machine, and only"),
        (["doubles.yaml", "--model", "none", "--revision", "x"], "--revision x: none lies on this"),
        (["doubles.yaml", "--model", "model.gguf", "--revision", "x"], "x: model.gguf lies on th"),
        (["misspelt.yaml"], "misspelt.yaml:3: statment: unknown key, did you mean 'statement'?"),
        (["alien.yaml", "--model", "letters"], "alien: the tokenizer of letters cannot encode"),
        (["doubles.yaml", "-n", "0"], "'-n' / '--samples': Input should be greater than or"),
        (["doubles.yaml", "-n", "-5"], "'-n' / '--samples': Input should be greater than or"),
        (["doubles.yaml", "-n", "100000000"], "-n 100000000: expected at most 10000000 samples"),
        (["doubles.yaml", "-n", "9" * 20], f"-n {'9' * 20}: expected at most 10000000 samples"),
        (["doubles.yaml", "-t", "-0.5"], "--temperature -0.5: expected 0 (greedy) or a finite"),
        (["doubles.yaml", "--top-p", "0"], "--top-p 0.0: expected a number in (0, 1]"),
        (["doubles.yaml", "--top-p", "1.5"], "--top-p 1.5: expected a number in (0, 1]"),
        (["doubles.yaml", "--memory", "0"], "--memory 0: expected a size of at least 1 byte"),
        (["doubles.yaml", "--device", "vulkan"], "no such device here; expected auto, cpu"),
        (["doubles.yaml", "--device", "mkldnn"], "no such device here; expected auto, cpu"),
        (["doubles.yaml", "--device", "meta"], "no such device here; expected auto, cpu"),
        (["doubles.yaml", "--device", "gpu"], "--device gpu: torch "),
        (["--prompts", "long.jsonl"], "tokens with --max-tokens, but tiny holds"),
        (["doubles.yaml", "-o", "none"], "--output none: is a directory; name a file"),
        (["doubles.yaml", "-o", "no/x"], "--output no/x: cannot be written: no directory no"),
        (["doubles.yaml", "-o", "taken.jsonl"], "taken.jsonl: exists; --resume continues it, --f"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_refused(folder: Path, args: list[str], message: str) -> None:
    before = contents(folder)
    ran = sample(folder, *args)
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
    assert message in ran.stderr
    assert ran.stderr.count("hydragen-sample: ") == 1
    assert len(ran.stderr.splitlines()) <= 2
    assert contents(folder) == before


@pytest.mark.parametrize(("output", "options"), [("taken.jsonl", ["--force"]), ("new.jsonl", [])])
def test_a_run_that_cannot_start_leaves_what_was_there(
    folder: Path, output: str, options: list[str]
) -> None:
    before = contents(folder)
    ran = sample(folder, "doubles.yaml", "--memory", "100KB", "-o", output, *options)
    assert ran.returncode == 1
    assert "one branch needs" in ran.stderr
    assert contents(folder) == before


def contents(folder: Path) -> dict[Path, object]:
    return {file: file.is_file() and file.read_bytes() for file in folder.rglob("*")}


def sample(folder: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("HYDRAGEN")}
    env = {**inherited, "XDG_CONFIG_HOME": os.devnull}
    return run_command("run_sample", *args, cwd=folder, env=env)
