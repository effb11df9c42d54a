"""`hydragen import` and `hydragen export`, from the command line to the files."""

import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hydragen_cli.program import load
from hydragen_tree.errors import InputError, OutputError
from hydragen_tree.problem.checkers import ProgramChecker
from hydragen_tree.problem.reading import load_problems

APPS = {
    "problem_id": 7,
    "question": "Add.",
    "input_output": {"inputs": ["1 2"], "outputs": ["3"]},
    "solutions": [],
}
PACKAGE = {
    "problem.yaml": "name: Guess\nvalidation: custom\n",
    "problem_statement/problem.en.tex": "Print any prime.\n",
    "data/secret/1.in": "1\n",
    "data/secret/1.ans": "2\n",
    "submissions/accepted/a.py": "print(2)\n",
    "submissions/accepted/a.java": "class Main {}\n",
    "output_validators/check/check.py": "import sys; sys.exit(42)\n",
    "output_validators/check/primes.py": "PRIMES = [2, 3]\n",
}


def run(*args: object) -> int:
    """The exit code of `hydragen import|export ...`."""
    command, *rest = map(str, args)
    return load(command).main(rest, prog_name="hydragen", standalone_mode=False) or 0


def package(folder: Path) -> Path:
    for name, text in PACKAGE.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def jsonl(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_a_data_set_becomes_native_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = jsonl(tmp_path / "apps.jsonl", APPS, {**APPS, "problem_id": 8})
    assert run("import", source, "-o", tmp_path / "out") == 0
    assert [p.id for p in load_problems([str(tmp_path / "out")])] == ["apps-7", "apps-8"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2 problem files written" in captured.err


def test_a_package_brings_its_checker_along(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("import", package(tmp_path / "guess"), "-o", tmp_path / "out") == 0
    [problem] = load_problems([str(tmp_path / "out")])
    assert isinstance(problem.checker, ProgramChecker)
    assert problem.checker.source == "guess-checker"
    files = sorted(path.name for path in (problem.directory / problem.checker.source).iterdir())
    assert files == ["check.py", "primes.py"]
    assert "a.java: .java: not Python, C or C++: left out" in capsys.readouterr().err


def test_a_single_file_checker_keeps_its_name(tmp_path: Path) -> None:
    folder = package(tmp_path / "guess")
    (folder / "output_validators/check/primes.py").unlink()
    (folder / "output_validators/check/check.py").rename(folder / "output_validators/only.py")
    (folder / "output_validators/check").rmdir()
    (folder / "output_validators/validate.h").write_text("\n")
    assert run("import", folder, "-o", tmp_path / "out") == 0
    [problem] = load_problems([str(tmp_path / "out")])
    assert isinstance(problem.checker, ProgramChecker)
    assert problem.checker.source == "guess-checker/only.py"
    assert (problem.directory / problem.checker.source).is_file()
    assert (problem.directory / "guess-checker/validate.h").is_file()


@pytest.mark.parametrize("inner", ["", "guess/"])
def test_an_archive_is_a_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], inner: str
) -> None:
    with zipfile.ZipFile(tmp_path / "guess.zip", "w") as archive:
        for name, text in PACKAGE.items():
            archive.writestr(inner + name, text)
    assert run("import", tmp_path / "guess.zip", "-o", tmp_path / "out") == 0
    assert load_problems([str(tmp_path / "out")])[0].id == "guess"
    assert (tmp_path / "out/guess-checker/check.py").is_file()
    skipped = f"{tmp_path}/guess.zip/{inner}submissions/accepted/a.java: .java: not Python, C or"
    assert skipped in capsys.readouterr().err


def test_an_archive_stands_for_its_folder_in_messages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(tmp_path / "guess.zip", "w") as archive:
        for name, text in PACKAGE.items():
            if "secret" not in name:
                archive.writestr(name, text)
    with pytest.raises(InputError, match="every problem was refused") as refusal:
        run("import", tmp_path / "guess.zip", "-o", tmp_path / "out")
    assert str(refusal.value).startswith(f"{tmp_path}/guess.zip/data/secret: no secret test case")
    assert not capsys.readouterr().err  # said once


def test_a_data_set_in_place_of_a_problem_is_told_from_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="hydragen import"):
        load_problems([str(jsonl(tmp_path / "apps.jsonl", APPS))])


def test_a_directory_of_anything(tmp_path: Path) -> None:
    package(tmp_path / "in/guess")
    jsonl(tmp_path / "in/apps.jsonl", APPS)
    (tmp_path / "in/notes.txt").write_text("not a problem", encoding="utf-8")
    assert run("import", tmp_path / "in", "-o", tmp_path / "out") == 0
    assert [p.id for p in load_problems([str(tmp_path / "out")])] == ["apps-7", "guess"]


def test_what_is_refused_is_named_and_the_rest_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = {**APPS, "problem_id": 9, "input_output": ""}
    invalid = {**APPS, "problem_id": 10, "question": ""}
    source = jsonl(tmp_path / "apps.jsonl", APPS, empty, APPS, invalid)
    broken = package(tmp_path / "broken")
    (broken / "data/secret/1.ans").unlink()
    assert run("import", source, broken, "-o", tmp_path / "out") == 3
    errors = capsys.readouterr().err
    assert f"{source}:2: apps-9: it has no tests" in errors
    assert f"{source}:3: {tmp_path}/out/apps-7.yaml already holds {source}:1" in errors
    assert f"{source}:4: statement" in errors
    assert "1.ans is missing" in errors
    assert [p.id for p in load_problems([str(tmp_path / "out")])] == ["apps-7"]


def test_nothing_is_overwritten_unless_forced(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "apps.jsonl", APPS)
    out = tmp_path / "out"
    assert run("import", source, "-o", out) == 0
    before = (out / "apps-7.yaml").read_text(encoding="utf-8")
    jsonl(source, {**APPS, "question": "Other."})
    with pytest.raises(InputError, match="exists"):
        run("import", source, "-o", out)
    assert (out / "apps-7.yaml").read_text(encoding="utf-8") == before
    assert run("import", source, "-o", out, "--force") == 0
    assert load_problems([str(out)])[0].statement == "Other.\n"
    assert run("import", package(tmp_path / "guess"), "-o", out) == 0
    assert run("import", tmp_path / "guess", "-o", out, "--force") == 0


def test_sources_that_are_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.zip").write_bytes(b"PK nonsense")
    for source, message in [
        (tmp_path / "missing", "no such file"),
        (tmp_path / "empty", "no problem package"),
        (tmp_path / "bad.zip", "cannot be unpacked"),
        (jsonl(tmp_path / "a.jsonl", {**APPS, "input_output": ""}), "every problem was refused"),
        (jsonl(tmp_path / "none.jsonl"), "there is no problem in it"),
    ]:
        with pytest.raises(InputError, match=message):
            run("import", source, "-o", tmp_path / "out")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot be written"):
        run("import", jsonl(tmp_path / "b.jsonl", APPS), "-o", tmp_path / "file")


SAMPLES: list[dict[str, Any]] = [
    {
        "task_id": "apps-2",
        "sample_index": 0,
        "solution": "a\n",
        "completion": "text",
        "n_tokens": 4,
    },
    {"task_id": "apps-0", "sample_index": 1, "solution": "c\n", "finish_reason": "length"},
    {"task_id": "apps-0", "sample_index": 0, "completion": "b\n"},
]


def exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, *records: object
) -> str:
    source = jsonl(tmp_path / "samples.jsonl", *(records or SAMPLES))
    assert run("export", source, "--format", name) == 0
    return capsys.readouterr().out


def test_export_human_eval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.loads(x) for x in exported(tmp_path, capsys, "human-eval").splitlines()]
    assert lines == [
        {"task_id": "apps-2", "completion": "a\n"},
        {"task_id": "apps-0", "completion": "c\n"},
        {"task_id": "apps-0", "completion": "b\n"},
    ]


def test_a_whole_program_is_a_completion_that_human_eval_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """human-eval runs prompt + completion + test: done here with a prompt in its form."""
    prompt = 'def one():\n    """ One. """\n'
    program = {"task_id": "HumanEval/0", "solution": "import math\ndef one():\n    return 1\n"}
    line = json.loads(exported(tmp_path, capsys, "human-eval", program))
    names: dict[str, Any] = {}
    exec(prompt + line["completion"] + "\nassert one() == 1", names)


def test_export_evalplus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.loads(x) for x in exported(tmp_path, capsys, "evalplus").splitlines()]
    assert lines == [
        {"task_id": "apps-2", "solution": "a\n"},
        {"task_id": "apps-0", "solution": "c\n"},
        {"task_id": "apps-0", "completion": "b\n"},
    ]


def test_export_apps_keeps_the_order_of_the_data_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert json.loads(exported(tmp_path, capsys, "apps")) == [["b\n", "c\n"], [], ["a\n"]]


def test_export_apps_refuses_other_problems(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "samples.jsonl", SAMPLES[0], {"task_id": "two-sum", "solution": ""})
    output = tmp_path / "generations.json"
    with pytest.raises(InputError, match=r"line 2: task_id 'two-sum': expected one of APPS"):
        run("export", source, "--format", "apps", "-o", output)
    assert [path.name for path in tmp_path.iterdir()] == ["samples.jsonl"]


def test_export_openai_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = map(json.loads, exported(tmp_path, capsys, "openai-batch").splitlines())
    assert (first["custom_id"], first["error"]) == ("apps-2", None)
    assert first["response"]["status_code"] == 200
    body = first["response"]["body"]
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "text"}
    assert "usage" not in body  # without a manifest nobody knows what was read
    assert body["choices"][0]["logprobs"] is None
    choices = second["response"]["body"]["choices"]
    assert [(c["index"], c["message"]["content"]) for c in choices] == [(0, "b\n"), (1, "c\n")]
    assert [c["finish_reason"] for c in choices] == ["stop", "length"]
    plain = json.loads(exported(tmp_path, capsys, "openai-batch-completions").splitlines()[0])
    assert plain["response"]["body"]["object"] == "text_completion"
    assert plain["response"]["body"]["choices"][0]["text"] == "text"


def test_export_names_broken_lines_and_reads_stdin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = b'{"task_id": "a", "solution": "\\ud800"}\nbroken\n{"task_id": "a", "completion": "y"}'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert run("export", "-", "--format", "evalplus") == 3
    captured = capsys.readouterr()
    assert [json.loads(line)["task_id"] for line in captured.out.splitlines()] == ["a", "a"]
    assert "line 2: not JSON" in captured.err
    assert "2 samples written; 1 line left out" in captured.err


def test_export_overwrites_nothing_unless_forced(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "samples.jsonl", *SAMPLES)
    output = tmp_path / "out.jsonl"
    output.write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="exists"):
        run("export", source, "--format", "evalplus", "-o", output)
    assert output.read_text(encoding="utf-8") == "mine"
    assert run("export", source, "--format", "evalplus", "-o", output, "--force") == 0
    assert len(output.read_text(encoding="utf-8").splitlines()) == 3
    with pytest.raises(InputError, match="cannot be read"):
        run("export", tmp_path / "missing", "--format", "apps")
    with pytest.raises(InputError, match="cannot be written"):
        run("export", source, "--format", "apps", "-o", tmp_path / "no" / "where")
