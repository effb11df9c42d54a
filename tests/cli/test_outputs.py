"""No output covers an input or another output, whatever it is called and with --force too."""

import json
import os
from pathlib import Path

import pytest

from hydragen_cli.main import load
from hydragen_cli.options import flag_of
from hydragen_tree.errors import InputError

PROBLEM = """\
id: sum
statement: Print the sum.
tests: [{input: "1 2", output: "3"}]
few_shot: {pool: pool.yaml, shots: 1}
"""
POOL = "examples: [{id: a, statement: Print 1., solution: print(1)}]\n"
TASK = {"prompts": [], "sha256": None, "path": "sum.yaml"}
MANIFEST = {"format": "hydragen-samples/1", "n": 1, "model": {}, "settings": {}}
MANIFEST |= {"tasks": {"sum": TASK}, "sessions": [], "result": None}
SAMPLE = {"task_id": "sum", "sample_index": 0, "completion": "", "solution": "print(3)"}


@pytest.fixture
def home(own_home: Path) -> Path:
    (own_home / "sum.yaml").write_text(PROBLEM)
    (own_home / "pool.yaml").write_text(POOL)
    (own_home / "s.jsonl").write_text(json.dumps(SAMPLE) + "\n")
    (own_home / "s.jsonl.manifest.json").write_text(json.dumps(MANIFEST))
    (own_home / "prompts.jsonl").write_text('{"prompt": "a"}\n')
    (own_home / "o.jsonl.manifest.json").write_text('{"prompt": "a"}\n')
    (own_home / "own.toml").write_text("")
    (own_home / "deep").mkdir()
    (own_home / "link.jsonl").symlink_to("sum.yaml")
    (own_home / "pool-link.jsonl").symlink_to("pool.yaml")
    os.link(own_home / "sum.yaml", own_home / "hard.jsonl")
    return own_home


def everything(home: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in home.iterdir() if file.is_file()}


SAMPLING = [
    ("sum.yaml -o sum.yaml", "is a problem's file"),
    ("sum.yaml -o ./deep/../sum.yaml", "is a problem's file"),
    ("sum.yaml -o link.jsonl", "is a problem's file"),
    ("sum.yaml -o hard.jsonl", "is a problem's file"),
    ("sum.yaml -o pool.yaml", "is YAML or TOML"),
    ("sum.yaml -o pool-link.jsonl", "is YAML or TOML"),
    ("sum.yaml --config own.toml -o own.toml", "is the configuration"),
    ("--prompts prompts.jsonl -o prompts.jsonl", "is the file of the prompts"),
    ("--prompts o.jsonl.manifest.json -o o.jsonl", "is the file of the prompts"),
    ("sum.yaml -o nowhere/s.jsonl", "no directory nowhere"),
]
JUDGING = [
    ("s.jsonl sum.yaml --summary sum.yaml", "--summary sum.yaml: is a problem's file"),
    ("s.jsonl sum.yaml --summary link.jsonl", "--summary link.jsonl: is a problem's file"),
    ("s.jsonl --summary hard.jsonl", "--summary hard.jsonl: is a problem's file"),
    ("s.jsonl . --summary hard.jsonl", "--summary hard.jsonl: is a problem's file"),
    ("s.jsonl sum.yaml --summary pool.yaml", "is YAML or TOML"),
    ("s.jsonl sum.yaml --summary s.jsonl", "is the file of the samples"),
    ("s.jsonl sum.yaml -o s.jsonl", "is the file of the samples"),
    ("s.jsonl sum.yaml -o s.jsonl.manifest.json", "is the manifest of the samples"),
    ("s.jsonl sum.yaml -o v.jsonl --summary ./v.jsonl", "is the file of --output too"),
    ("s.jsonl sum.yaml --summary x.svg --plot deep/../x.svg", "is the file of --summary too"),
    ("s.jsonl sum.yaml --config own.toml --summary own.toml", "is the configuration"),
    ("s.jsonl sum.yaml --plot nowhere/a.svg", "no directory nowhere"),
]


@pytest.mark.parametrize("force", [[], ["--force"]], ids=["", "force"])
@pytest.mark.parametrize(
    ("command", "given", "message"),
    [("sample", *case) for case in SAMPLING] + [("eval", *case) for case in JUDGING],
)
def test_inputs_survive(
    home: Path, command: str, given: str, message: str, force: list[str]
) -> None:
    before = everything(home)
    with pytest.raises(InputError) as caught:
        load(command).main([*given.split(), *force], standalone_mode=False)
    assert message in caught.value.worded(flag_of)
    assert everything(home) == before


def test_checkers_and_packages_are_inputs(home: Path) -> None:
    checker = "checker: {type: program, protocol: python, source: check.py}\n"
    (home / "sum.yaml").write_text(PROBLEM + checker)
    (home / "check.py").write_text("def check(input, answer, output): return True\n")
    with pytest.raises(InputError, match="is a problem's checker"):
        load("eval").main(["s.jsonl", "sum.yaml", "--summary", "check.py"], standalone_mode=False)


def test_an_export_does_not_replace_its_samples(home: Path) -> None:
    given = ["s.jsonl", "--format", "evalplus", "-o", "./s.jsonl", "--force"]
    with pytest.raises(InputError, match="is the file of the samples"):
        load("export").main(given, standalone_mode=False)


def test_devices_may_be_named_twice(home: Path) -> None:
    from hydragen_cli.outputs import check_outputs

    null = Path("/dev/null")
    check_outputs({"output": null, "summary": null, "plot": None}, [("an input", null)])
