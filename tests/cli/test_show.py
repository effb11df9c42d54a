"""`hydragen show` on files that the real commands wrote."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hydragen_cli.options import flag_of
from hydragen_cli.program import load
from hydragen_tree.errors import InputError
from tests.forked import output_of
from tests.judge.test_eval import command, write_problems

RIGHT = "print(sum(map(int, input().split())))"
WRONG = "print(3)"
LOOPS = "while True:\n    pass"


Show = Callable[..., str]
ShowJson = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a run was drawn from the shipped model and judged."""
    folder = tmp_path_factory.mktemp("drawn")
    write_problems(folder)
    given = ["sum.yaml", "total.yaml", "-n", "4", "--max-tokens", "24", "--logprobs"]
    output_of(folder, "sample", *given, "-o", "samples.jsonl")
    output_of(folder, "eval", "samples.jsonl", "-o", "verdicts.jsonl", "--no-cache")
    return folder


@pytest.fixture(scope="module")
def of_known_programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("known")
    write_problems(folder)
    programs = [WRONG, RIGHT, WRONG, LOOPS, "print('\x1b[31m')"]
    lines = [
        {"task_id": "sum", "sample_index": i, "solution": program, "problem": "sum.yaml"}
        for i, program in enumerate(programs)
    ]
    lines.append(
        {"task_id": "total", "sample_index": 0, "solution": WRONG, "problem": "total.yaml"}
    )
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    output_of(folder, "eval", "samples.jsonl", "-o", "verdicts.jsonl", "--no-cache")
    return folder


@pytest.fixture
def judged(own_home: Path, of_known_programs: Path) -> Path:
    """Programs whose verdicts are known, judged; a copy, to do with as a test likes."""
    shutil.copytree(of_known_programs, own_home, dirs_exist_ok=True)
    return own_home


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    """Runs `hydragen show ARGS` in this process; returns what stands on stdout."""

    def run(*args: str, columns: int = 100) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        load("show").main([*args], standalone_mode=False)
        return capsys.readouterr().out

    return run


@pytest.fixture
def show_json(show: Show) -> ShowJson:
    return lambda *args: json.loads(show(*args, "--json"))


def test_a_drawn_run_is_shown_with_its_settings(
    show: Show, show_json: ShowJson, drawn: Path
) -> None:
    text = show(str(drawn))
    assert "model     tiny, float32 on cpu" in text
    assert "n 4, temperature 0.8" in text
    assert "max_tokens 24" in text
    assert "samples   8 of 2 problems" in text
    assert "judged    8 samples" in text
    assert "pass@1" in text
    record = show_json(str(drawn / "samples.jsonl"))
    assert record["settings"]["max_tokens"] == 24
    assert record["counts"]["samples"] == 8
    assert record["run"]["verdicts"] == str(drawn / "verdicts.jsonl")
    assert [task["task_id"] for task in record["problems"]]
    assert record["summary"]["overall"]["problems"] == 2


def test_a_drawn_sample_is_shown_with_its_probabilities(
    show: Show, show_json: ShowJson, drawn: Path
) -> None:
    text = show(str(drawn), "sum", "1")
    assert "sum, sample 1, variant" in text
    assert "a token (geometric mean)" in text
    assert "least likely tokens" in text
    record = show_json(str(drawn), "sum", "1")
    assert record["sample"]["sample_index"] == 1
    assert len(record["sample"]["token_logprobs"]) == record["sample"]["n_tokens"]


def test_a_run_that_is_not_judged_says_how_to(
    show: Show, show_json: ShowJson, drawn: Path, own_home: Path
) -> None:
    Path("samples.jsonl").write_text((drawn / "samples.jsonl").read_text())
    text = show("samples.jsonl")
    assert "hydragen-eval samples.jsonl judges it" in text
    assert "settings  not known" in text
    assert "log-prob" in text
    assert show_json("samples.jsonl")["summary"] is None
    with pytest.raises(InputError, match=r"solved: samples\.jsonl: nothing is judged yet"):
        show("samples.jsonl", "--solved")


def test_the_programs_of_a_problem(show: Show, show_json: ShowJson, judged: Path) -> None:
    text = show("samples.jsonl", "sum")
    head = text.index("2 samples (40.0%) WA on test 2: token 1: expected '9', got '3'")
    assert text[head:].splitlines()[1:3] == ["index 0, 2", WRONG]
    assert "1 sample (20.0%) TLE on test 1" in text
    assert "\x1b" not in text  # what a program holds is no command to the terminal
    assert RIGHT not in show("samples.jsonl", "sum", "--failing")
    assert "1 program more" in show("samples.jsonl", "sum", "--top", "3")
    solved = show_json("samples.jsonl", "sum", "--solved")
    assert [p["solution"] for p in solved["programs"]] == [RIGHT]
    assert solved["verdicts"] == {"WA": 3, "AC": 1, "TLE": 1}


def test_a_failing_test_with_input_expected_and_got(
    show: Show, show_json: ShowJson, judged: Path
) -> None:
    text = show("samples.jsonl", "sum", "0")
    lines = text.splitlines()
    assert "verdict  WA on test 2: token 1: expected '9', got '3'" in lines
    at = lines.index("test 2 of 2, compared by tokens")
    assert lines[at + 1 : at + 6] == [
        "input",
        "  4 5",
        "expected (-) and got (+)",
        "- 1 | 9",
        "+ 1 | 3",
    ]
    test = show_json("samples.jsonl", "sum", "0")["failing_test"]
    assert (test["index"], test["input"], test["expected"], test["got"]) == (
        1,
        "4 5\n",
        "9\n",
        "3\n",
    )
    assert "test 1 of" not in show("samples.jsonl", "sum", "1")


def test_a_problem_that_is_gone_is_named(show: Show, judged: Path) -> None:
    Path("sum.yaml").rename("elsewhere.yaml")
    assert "its test cannot be shown: sum.yaml" in show("samples.jsonl", "sum", "0")
    assert "test 2 of 2" in show("samples.jsonl", "sum", "0", "--problems", "elsewhere.yaml")


def test_problems_are_chosen_by_what_became_of_them(
    show: Show, show_json: ShowJson, judged: Path
) -> None:
    def listed(*which: str) -> list[str]:
        return [task["task_id"] for task in show_json("samples.jsonl", *which)["problems"]]

    assert sorted(listed()) == ["sum", "total"]
    assert listed("--solved") == ["sum"]
    assert listed("--failing") == ["total"]
    assert "total" not in show("samples.jsonl", "--solved").partition("By problem")[2]


@pytest.mark.parametrize("columns", [20, 40, 80])
@pytest.mark.parametrize("what", [[], ["sum"], ["sum", "0"]])
def test_few_columns_lose_no_program_and_no_name(
    show: Show, judged: Path, columns: int, what: list[str]
) -> None:
    text = show("samples.jsonl", *what, columns=columns)
    assert "sum" in text
    if what:
        assert WRONG in text
    tables = text.partition("By problem")[2].splitlines()
    assert all(len(line) <= columns for line in tables if "─" in line)


def test_a_closed_pipe_ends_quietly(judged: Path) -> None:
    show_all = " ".join(f"'{part}'" for part in command("run", "show", "samples.jsonl", "sum"))
    ran = subprocess.run(["bash", "-c", f"{show_all} | head -1"], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("problem   sum\n", "")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "nowhere: cannot be read"),
        (["samples.jsonl", "sun"], "no samples of a task 'sun'; did you mean sum?"),
        (["samples.jsonl", "sum", "9"], "sum has no sample 9: there are 5, from 0 to 4"),
        (["samples.jsonl", "--solved", "--failing"], "--solved: is the opposite of --failing"),
        (["samples.jsonl", "sum", "0", "--failing"], "--failing: chooses among"),
        (["samples.jsonl", "-k", "0"], "-k 0: expected integers >= 1"),
    ],
)
def test_errors_name_file_and_remedy(
    show: Show, judged: Path, args: list[str], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        show(*args)
    assert message in caught.value.worded(flag_of)


NAMES = ("[/b]", "[red]a[/red]", "\x1b[31mesc", "two\nlines", "half \ud800", ":smile:")


@pytest.mark.parametrize("judged", [True, False])
def test_names_are_text_whatever_they_hold(
    own_home: Path, capsys: pytest.CaptureFixture[str], judged: bool
) -> None:
    """Ids of other tools' requests are anything; brackets are markup to rich, escapes to a tty."""
    for file in ("a.jsonl", "b.jsonl"):
        lines = [{"task_id": name, "solution": f"[{file}]"} for name in NAMES]
        if judged:
            lines = [line | {"verdict": "AC" if file == "a.jsonl" else "WA"} for line in lines]
        Path(file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, arguments in (("show", ["a.jsonl"]), ("compare", ["a.jsonl", "b.jsonl"])):
        assert not load(name).main(arguments, standalone_mode=False)
        said = capsys.readouterr().out
        assert "\x1b" not in said
        if judged or name == "show":
            for shown in ("[/b]", "[red]a[/red]", "[31mesc", "two lines", "half", ":smile:"):
                assert shown in said
    for name in NAMES:
        assert not load("show").main(["a.jsonl", name], standalone_mode=False)
    assert not load("show").main(["a.jsonl", "[/b]", "0"], standalone_mode=False)
    assert "[a.jsonl]" in capsys.readouterr().out
