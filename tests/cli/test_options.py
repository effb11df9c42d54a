"""Option values: flag > environment > TOML > default, and errors that say where a value is from."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from hydragen_cli import arguments
from hydragen_cli.commands import COMMANDS
from hydragen_cli.options import Command, explain, flag_of, parse_bytes, parse_chat_options
from hydragen_tree.errors import InputError
from hydragen_tree.settings import SamplingSettings

Invoke = Callable[..., dict[str, Any]]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs a small command named `sample` in an empty directory and returns its values."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in [name for name in os.environ if name.startswith("HYDRAGEN_")]:
        monkeypatch.delenv(name)
    seen: dict[str, Any] = {}

    def sample(
        problems: arguments.Problems = None,
        samples: arguments.Samples = 100,
        temperature: arguments.Temperature = 0.8,
        max_tokens: arguments.MaxTokens = 256,
        stop: arguments.Stop = None,
        logprobs: Annotated[bool, typer.Option("--logprobs")] = False,
        output: arguments.Output = None,
        config: arguments.Config = None,
    ) -> None:
        SamplingSettings(temperature=temperature)
        seen.update(locals())

    app = typer.Typer(add_completion=False)
    app.command("sample", cls=Command)(sample)
    command = typer.main.get_command(app)

    def run(*args: str, **environment: str) -> dict[str, Any]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        command.main(list(args), prog_name="hydragen-sample", standalone_mode=False)
        return seen

    return run


def refused(invoke: Invoke, *args: str, **environment: str) -> str:
    with pytest.raises((InputError, typer.TyperException)) as caught:
        invoke(*args, **environment)
    error = caught.value
    if isinstance(error, typer.TyperException):
        assert error.exit_code == 2
        return explain(error)
    assert isinstance(error, InputError)
    return error.worded(flag_of)


def test_precedence(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke()["max_tokens"] == 256
    user = tmp_path / "config" / "hydragen" / "hydragen.toml"
    user.parent.mkdir(parents=True)
    user.write_text("[sample]\nmax-tokens = 1\nsamples = 7\n")
    assert invoke()["max_tokens"] == 1
    (tmp_path / "hydragen.toml").write_text("[sample]\nmax-tokens = 2\n")
    assert invoke()["max_tokens"] == 2
    assert invoke()["samples"] == 7
    (tmp_path / "other.toml").write_text("[sample]\nmax_tokens = 3\n[eval]\nwhatever = 1\n")
    assert invoke("--config", "other.toml")["max_tokens"] == 3
    assert invoke(HYDRAGEN_CONFIG="other.toml")["max_tokens"] == 3
    assert invoke(HYDRAGEN_MAX_TOKENS="4")["max_tokens"] == 4
    assert invoke("--max-tokens", "5")["max_tokens"] == 5


def test_kinds_of_values(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "hydragen.toml").write_text(
        '[sample]\nlogprobs = true\nstop = ["\\n\\n", "def main"]\noutput = "out.jsonl"\n'
    )
    seen = invoke("p.yaml")
    assert seen["logprobs"] is True
    assert seen["stop"] == ["\n\n", "def main"]
    assert seen["output"] == Path("out.jsonl")
    assert seen["problems"] == ["p.yaml"]
    assert invoke(HYDRAGEN_LOGPROBS="0")["logprobs"] is False
    assert invoke(HYDRAGEN_STOP="if __name__")["stop"] == ["if __name__"]
    assert invoke(HYDRAGEN_STOP='["a b", "c"]')["stop"] == ["a b", "c"]
    assert invoke("--stop", "x", "--stop", "y z")["stop"] == ["x", "y z"]


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[sample]\nmax-token = 1", r"hydragen.toml: [sample] max-token: no such option; "
         "did you mean max-tokens?"),
        ("[sampel]\nseed = 1", "hydragen.toml: sampel: no such table; did you mean sample?"),
        ("max-tokens = 1", "hydragen.toml: max-tokens: expected in the table of a command, as "
         "below a line [sample]"),
        ("[sample", "hydragen.toml: not valid TOML"),
        ('[sample]\nmax-tokens = "many"', "hydragen.toml: [sample] max-tokens: Input should be"),
        ("[sample]\ntemperature = -1", "(set by hydragen.toml: [sample] temperature)"),
    ],
    ids=["option", "table", "no-table", "syntax", "type", "range"],
)  # fmt: skip
def test_wrong_file_is_named(invoke: Invoke, tmp_path: Path, toml: str, message: str) -> None:
    (tmp_path / "hydragen.toml").write_text(toml)
    assert message in refused(invoke)


def test_wrong_variable_is_named(invoke: Invoke) -> None:
    assert refused(invoke, HYDRAGEN_SAMPLES="lots").startswith("HYDRAGEN_SAMPLES: ")
    assert invoke("-n", "3")["samples"] == 3  # a flag outranks even a wrong variable
    message = refused(invoke, "-n", "3", HYDRAGEN_TEMPERATURE="-0.5")
    assert message == (
        "--temperature -0.5: expected 0 (greedy) or a finite number >= 1e-06 "
        "(set by HYDRAGEN_TEMPERATURE)"
    )


def test_wrong_flag_is_named(invoke: Invoke) -> None:
    assert "'--samples'" in refused(invoke, "-n", "0")
    assert (
        refused(invoke, "-t", "-1")
        == "--temperature -1.0: expected 0 (greedy) or a finite number >= 1e-06"
    )
    assert "--sample" in refused(invoke, "--sampels", "1")
    assert "missing.toml: cannot be read" in refused(invoke, "--config", "missing.toml")


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("8GiB", 8 << 30), ("500 mb", 500_000_000), ("1.5KiB", 1536), ("4096", 4096)],
)
def test_sizes(text: str, n_bytes: int) -> None:
    assert parse_bytes("memory_bytes", text) == n_bytes


@pytest.mark.parametrize("text", ["", "GiB", "8 gigs", "-1", "1e9"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(InputError, match=r"memory_bytes .*expected a size such as 8GiB"):
        parse_bytes("memory_bytes", text)


HEAVY = {"torch", "transformers", "pydantic", "numpy", "scipy", "ruamel"}


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy(command: str) -> None:
    script = f"""
import sys
from hydragen_cli.main import run
sys.argv = ["hydragen", *{command.split()!r}, "--help"]
try:
    run()
finally:
    print(sorted({{name.split(".")[0] for name in sys.modules}} & {HEAVY!r}), file=sys.stderr)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "Usage: hydragen" in ran.stdout
    assert ran.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("hydragen sam", ["sample"]),
        ("hydragen sample --max", ["--max-tokens", "--max-rows"]),
        ("hydragen-sample --dtype ", ["auto", "float32", "bfloat16", "float16"]),
    ],
)
def test_shells_complete(words: str, expected: list[str]) -> None:
    program, *rest = words.split(" ")
    function = {"hydragen": "run", "hydragen-sample": "run_sample"}[program]
    asked = f"_{program.upper().replace('-', '_')}_COMPLETE"
    ran = subprocess.run(
        [sys.executable, "-c", f"from hydragen_cli import main; main.{function}()"],
        env={
            **os.environ,
            asked: "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": f"{len(rest)}",
        },
        capture_output=True,
        text=True,
    )
    assert ran.stdout.split() == expected, ran.stderr


def test_chat_options_are_json_or_text() -> None:
    given = ["enable_thinking=false", "effort=low", "budget=512", "note=a=b", 'tags=["x"]']
    assert parse_chat_options(given) == {
        "enable_thinking": False,
        "effort": "low",
        "budget": 512,
        "note": "a=b",
        "tags": ["x"],
    }
    for wrong in ("enable_thinking", "=1", "a b=1"):
        with pytest.raises(InputError, match=r"chat_options .*: expected NAME=VALUE"):
            parse_chat_options([wrong])
