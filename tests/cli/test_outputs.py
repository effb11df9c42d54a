"""No output covers an input or another output, whatever it is called and with --force too."""

import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest

from hydragen_cli.options import flag_of
from hydragen_cli.program import load
from hydragen_tree.errors import InputError
from tests.judge.test_eval import command

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
    (own_home / "deep" / "config.json").write_text("{}")
    (own_home / "model.gguf").write_text("GGUF")
    (own_home / "other.toml").write_text("[sample]\nseed = 1\n")
    (own_home / "other-link.jsonl").symlink_to("other.toml")
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
    ("sum.yaml -o pool.yaml", "is a problem's pool of examples"),
    ("sum.yaml -o pool-link.jsonl", "is a problem's pool of examples"),
    ("sum.yaml -o other.toml", "is YAML or TOML"),
    ("sum.yaml -o other-link.jsonl", "is YAML or TOML"),
    ("sum.yaml -o deep", "is a directory"),
    ("sum.yaml --model model.gguf -o model.gguf", "is a file of the model"),
    ("sum.yaml --model deep -o deep/config.json", "is a file of the model"),
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
    ("s.jsonl sum.yaml --summary other.toml", "is YAML or TOML"),
    ("s.jsonl sum.yaml --summary deep", "is a directory"),
    ("s.jsonl sum.yaml --plot deep", "is a directory"),
    ("s.jsonl sum.yaml -o deep", "is a directory"),
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


def package(home: Path, name: str) -> Path:
    for folder, file, text in [
        ("", "problem.yaml", "problem_format_version: '2023-07'\nname: Sum\nuuid: u\n"),
        ("data/sample", "1.in", "1 2\n"),
        ("data/sample", "1.ans", "3\n"),
        ("data/secret", "1.in", "1 2\n"),
        ("data/secret", "1.ans", "3\n"),
        ("statement", "problem.en.tex", "\\problemname{Sum} Print the sum.\n"),
    ]:
        (home / name / folder).mkdir(parents=True, exist_ok=True)
        (home / name / folder / file).write_text(text)
    return home / name


def test_an_import_does_not_replace_what_it_reads(home: Path) -> None:
    own = package(home, "problem")
    before = (own / "problem.yaml").read_bytes()
    given = ["problem", "-o", "problem", "--force"]
    with pytest.raises(InputError, match=r"problem\.yaml is a source"):
        load("import").main(given, standalone_mode=False)
    assert (own / "problem.yaml").read_bytes() == before
    package(home, "in/add")
    (home / "in" / "add.yaml").symlink_to("../sum.yaml")
    kept = (home / "sum.yaml").read_bytes()
    for _ in range(2):  # again over its own output, which lies among the sources
        assert load("import").main(["in", "-o", "in", "--force"], standalone_mode=False) == 0
    assert (home / "sum.yaml").read_bytes() == kept
    assert not (home / "in" / "add.yaml").is_symlink()


@pytest.mark.parametrize(
    ("command", "given", "message"),
    [
        ("schema", "-o other.toml", "is YAML or TOML"),
        ("schema", "--config own.toml -o own.toml", "is the configuration"),
        ("schema", "-o deep", "is a directory"),
        ("schema", "-o nowhere/s.json", "no directory nowhere"),
        ("export", "s.jsonl --format evalplus -o s.jsonl.manifest.json --force", "the manifest"),
        ("export", "s.jsonl --format evalplus -o deep --force", "is a directory"),
        ("eval", "s.jsonl sum.yaml --force", "--force: only a file can be started anew"),
        ("bench", "cpu --problem sum.yaml -o hard.jsonl", "is a problem's file"),
        ("bench", "cpu --problem sum.yaml -o pool-link.jsonl", "a problem's pool of examples"),
        ("bench", "decode --figures f.svg -o f.svg --plot g.svg", "is the file of the figures"),
        ("bench", "decode --figures f.svg --plot ./f.svg", "is the file of the figures"),
        ("bench", "decode -o x.svg --plot ./deep/../x.svg", "is the file of --output too"),
    ],
)
def test_every_command_has_the_guard(home: Path, command: str, given: str, message: str) -> None:
    (home / "f.svg").write_text('{"bench": "decode"}')
    before = everything(home)
    with pytest.raises(InputError) as caught:
        load(command).main(given.split(), standalone_mode=False)
    assert message in caught.value.worded(flag_of)
    assert everything(home) == before


@pytest.mark.parametrize("where", ["manifest", "line"])
@pytest.mark.parametrize(
    "option", ["--summary data.jsonl", "-o data.jsonl --force", "-o link-data.jsonl --force"]
)
def test_problems_that_only_the_samples_name(home: Path, where: str, option: str) -> None:
    record = {"task_id": "HumanEval/0", "prompt": "def f():\n", "entry_point": "f"}
    record |= {"canonical_solution": "    return 1\n", "test": "def check(f):\n    assert f()\n"}
    (home / "data.jsonl").write_text(json.dumps(record) + "\n")
    (home / "link-data.jsonl").symlink_to("data.jsonl")
    sample = {**SAMPLE, "task_id": "HumanEval/0"}
    manifest = {**MANIFEST, "tasks": {"HumanEval/0": {**TASK, "path": "data.jsonl"}}}
    if where == "line":
        manifest, sample = MANIFEST, {**sample, "problem": "data.jsonl"}
    (home / "s.jsonl").write_text(json.dumps(sample) + "\n")
    (home / "s.jsonl.manifest.json").write_text(json.dumps(manifest))
    before = everything(home)
    with pytest.raises(InputError, match="is a problem's file"):
        load("eval").main(["s.jsonl", *option.split()], standalone_mode=False)
    assert everything(home) == before


@pytest.mark.parametrize("name", ["data.jsonl", "data.json", "data.jsonl.gz"])
def test_problems_that_only_a_later_line_names(
    home: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then verdicts have been written; whatever is none must not be given up for them."""
    record = {"problem_id": 7, "question": "Add.", "solutions": []}
    record["input_output"] = {"inputs": ["1 2"], "outputs": ["3"]}
    data = json.dumps([record], indent=1) if name == "data.json" else json.dumps(record) + "\n"
    (home / name).write_bytes(gzip.compress(data.encode()) if ".gz" in name else data.encode())
    late = {**SAMPLE, "task_id": "apps-7", "problem": name}
    lines = [{**SAMPLE, "problem": "sum.yaml"}] * 3 + [late]
    (home / "s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = everything(home)
    with pytest.raises(InputError) as caught:
        load("eval").main(["s.jsonl", "-o", name, "--force"], standalone_mode=False)
    said = f"{name}: holds no verdicts, and --force gives up nothing else"
    assert said in caught.value.worded(flag_of)
    assert everything(home) == before


def test_force_gives_up_verdicts(home: Path) -> None:
    """Those of an earlier run, and the beginning of one that was killed."""
    given = ["s.jsonl", "sum.yaml", "-o", "v.jsonl", "--force"]
    assert load("eval").main(given, standalone_mode=False) == 0
    whole = (home / "v.jsonl").read_bytes()
    for there in (whole, whole[:40], b""):
        (home / "v.jsonl").write_bytes(there)
        assert load("eval").main(given, standalone_mode=False) == 0
        assert len((home / "v.jsonl").read_bytes().splitlines()) == 1
    (home / "v.jsonl").write_bytes(b"notes\n" + whole)
    with pytest.raises(InputError, match="holds no verdicts"):
        load("eval").main(given, standalone_mode=False)


def test_what_stdin_is_read_from_is_an_input(home: Path) -> None:
    before = everything(home)
    for entry, given, name in [
        ("run_eval", "- sum.yaml -o s.jsonl --force", "s.jsonl"),
        ("run_eval", "- sum.yaml --summary s.jsonl", "s.jsonl"),
        ("run_sample", "--prompts - -o prompts.jsonl --force", "prompts.jsonl"),
    ]:
        with (home / name).open("rb") as stdin:
            called = command(entry, *given.split())
            done = subprocess.run(called, cwd=home, stdin=stdin, capture_output=True, text=True)
        assert done.returncode == 2, done
        assert "is what stdin is read from" in done.stderr
    assert everything(home) == before


def test_what_is_written_is_not_read_again(home: Path) -> None:
    before = everything(home)
    for entry, *given in (["run_eval", "s.jsonl", "sum.yaml"], ["run_sample", "sum.yaml"]):
        with (home / given[0]).open("ab") as stdout:
            called = command(entry, *given)
            done = subprocess.run(called, cwd=home, stdout=stdout, stderr=-1, text=True)
        assert done.returncode == 2
        assert f"stdout: goes to {given[0]}" in done.stderr
    assert everything(home) == before


def test_stdout_by_another_name_is_stdout(home: Path) -> None:
    for name in ("-", "/dev/stdout", "/dev/fd/1"):
        with (home / "out").open("wb") as stdout:
            given = ["export", "s.jsonl", "--format", "evalplus", "-o", name, "--force"]
            assert subprocess.run(command("run", *given), cwd=home, stdout=stdout).returncode == 0
        assert json.loads((home / "out").read_text())["task_id"] == "sum"
    assert not (home / "-").exists()
    assert Path("/dev/stdout").is_symlink()


def test_devices_may_be_named_twice(home: Path) -> None:
    from hydragen_cli.outputs import check_outputs

    null = Path("/dev/null")
    check_outputs({"output": null, "summary": null, "plot": None}, [("an input", null)])
