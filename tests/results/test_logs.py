"""A run in the layouts of inspect's log and of the samples that lm-eval logs."""

import json
import re
from pathlib import Path

import pytest

from hydragen_cli.program import load
from hydragen_tree.errors import InputError
from hydragen_tree.results.run_files import read_lines
from hydragen_tree.sample.lines import SampleLine
from tests.results.report_run import PROGRAMS, write_run


def export(run: str, format_: str, output: str) -> int:
    arguments = [run, "--format", format_, "-o", output]
    code = load("export").main(arguments, prog_name="hydragen export", standalone_mode=False)
    return code or 0


@pytest.fixture
def run(own_home: Path) -> Path:
    """A folder in which `run` is a run; a file of one of its problems is there."""
    write_run(own_home / "run")
    problem = {"id": "half", "statement": "Print half.", "tests": [{"input": "", "output": "1"}]}
    (own_home / "0.yaml").write_text(json.dumps(problem))
    return own_home


def test_a_log_of_inspect(run: Path) -> None:
    assert export("run", "inspect", "log.json") == 0
    log = json.loads((run / "log.json").read_text())
    assert [*log][-1] == "samples"  # a reader of the rest stops before them
    assert (log["version"], log["status"], log["eval"]["model"]) == (2, "success", "tiny <i>")
    assert log["eval"]["created"] == "2026-11-29T06:34:22+00:00"
    assert log["eval"]["config"] == {"epochs": 5}
    assert log["eval"]["model_generate_config"] == {"temperature": 0.8, "seed": 7}
    metrics = log["results"]["scores"][0]["metrics"]
    assert metrics["accuracy"]["value"] == 8 / 15
    assert metrics["pass@5"]["value"] == pytest.approx(2 / 3)
    samples = {(sample["id"], sample["epoch"]): sample for sample in log["samples"]}
    assert len(samples) == 15
    right, wrong = samples["half", 1], samples["half", 2]
    assert right["input"] == "Print half."
    assert samples["always", 1]["input"] == "always"  # its problem's file is not there
    assert right["output"]["choices"][0]["message"]["content"] == "n = int(input())\nprint(n)"
    assert right["output"]["usage"]["output_tokens"] == 10
    assert right["scores"]["hydragen-eval"]["value"] == "C"
    score = wrong["scores"]["hydragen-eval"]
    assert score["value"] == "I"
    assert score["explanation"] == "WA on test 2: token 1: expected '<5>', got '6'"


@pytest.mark.filterwarnings("default")
def test_inspect_reads_its_log(run: Path) -> None:
    inspect = pytest.importorskip("inspect_ai.log", reason="inspect_ai is not installed")
    export("run", "inspect", "log.json")
    log = inspect.read_eval_log("log.json")
    assert (log.status, len(log.samples)) == ("success", 15)
    sample = inspect.read_eval_log_sample("log.json", id="half", epoch=2)
    assert sample.output.completion == "n = int(input())\nprint(n + 1)"
    assert sample.scores["hydragen-eval"].value == "I"
    inspect.write_eval_log(log, "log.eval")
    assert inspect.read_eval_log("log.eval", header_only=True).results.total_samples == 15


def test_a_log_in_a_directory_is_named_as_its_tool_looks_for_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "logs").mkdir()
    assert export("run", "inspect", "logs") == export("run", "lm-eval", "logs/") == 0
    first, second = sorted(path.name for path in (run / "logs").iterdir())
    # inspect lists files whose names begin with a time, lm-eval's readers take samples_*.jsonl.
    assert re.fullmatch(r"2026-11-29T06-34-22-00-00_hydragen_[0-9a-f]{12}\.json", first)
    assert second == "samples_hydragen_2026-11-29T06-34-22-00-00.jsonl"
    assert f"logs/{first}" in capsys.readouterr().err
    head = json.loads((run / "logs" / first).read_text())["eval"]
    assert head["run_id"]  # two logs without one, started in the same second, are one to inspect
    assert head["task_id"]
    with pytest.raises(InputError, match=r"x\.eval: inspect's \.eval is another layout"):
        export("run", "inspect", "x.eval")


def test_what_a_model_thought_stands_before_its_answer(own_home: Path) -> None:
    line = {"task_id": "a", "completion": "print(1)", "reasoning": "Easy."}
    Path("samples.jsonl").write_text(json.dumps(line))
    export("samples.jsonl", "inspect", "log.json")
    (sample,) = json.loads(Path("log.json").read_text())["samples"]
    assert sample["output"]["choices"][0]["message"]["content"] == [
        {"type": "reasoning", "reasoning": "Easy."},
        {"type": "text", "text": "print(1)"},
    ]
    (read,) = read_lines(Path("log.json"))
    assert isinstance(read, SampleLine)
    assert read.completion == "print(1)"


def test_samples_as_lm_eval_logs_them(run: Path) -> None:
    assert export("run/verdicts.jsonl", "lm-eval", "samples_run.jsonl") == 0
    text = (run / "samples_run.jsonl").read_text()
    lines = [json.loads(line) for line in text.removesuffix("\n").split("\n")]
    assert [line["doc"]["task_id"] for line in lines] == list(PROGRAMS)
    half = lines[0]
    assert half["arguments"]["gen_args_0"]["arg_0"] == half["doc"]["prompt"] == "Print half."
    assert half["resps"][0][0] == "n = int(input())\nprint(n)"
    programs = [program.replace("\ud800", "\ufffd") for program, _ in PROGRAMS["half"]]
    assert half["filtered_resps"] == [programs]
    assert (half["pass@1"], half["pass@5"]) == (0.6, 1.0)
    assert half["verdicts"] == ["AC", "WA", "AC", "AC", "WA"]


@pytest.mark.parametrize(("format_", "name"), [("inspect", "log.json"), ("lm-eval", "s.jsonl")])
def test_what_is_written_is_read_back(run: Path, format_: str, name: str) -> None:
    export("run", format_, name)
    found = [line for line in read_lines(run / name) if isinstance(line, SampleLine)]
    drawn = {(line.task_id, line.sample_index): line.program() for line in found}
    expected = {
        (task_id, index): program.strip().replace("\ud800", "\ufffd")
        for task_id, programs in PROGRAMS.items()
        for index, (program, _) in enumerate(programs)
    }
    assert {key: program.strip() for key, program in drawn.items()} == expected


def test_a_run_that_is_not_judged_has_no_scores(own_home: Path) -> None:
    write_run(own_home / "run", judged=False, manifest=False)
    export("run", "inspect", "log.json")
    log = json.loads(Path("log.json").read_text())
    assert log["results"]["scores"] == []
    assert not any("scores" in sample for sample in log["samples"])
    export("run", "lm-eval", "samples.jsonl")
    line = json.loads(Path("samples.jsonl").read_text().split("\n")[0])
    assert (line["metrics"], line["verdicts"]) == ([], [None] * 5)


def test_a_log_is_of_files(run: Path) -> None:
    with pytest.raises(InputError, match="a log is of a run"):
        export("-", "inspect", "log.json")
    with pytest.raises(InputError, match="is the file of the verdicts"):
        export("run", "lm-eval", "run/verdicts.jsonl")
