"""Which settings hold and where they come from: in a dry run, with -v, and in the record."""

import json
from pathlib import Path

import pytest

from hydragen_cli.program import load
from hydragen_tree.model.tiny import MODEL_DIR
from tests.judge.test_eval import write_problems


@pytest.fixture(autouse=True)
def layers(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value from each source."""
    write_problems(own_home)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("HYDRAGEN_TOP_K", "7")
    (own_home / "hydragen.toml").write_text(
        "[sample]\ntemperature = 0.5\nstop = ['\\n\\n', 'end']\n[run]\nmax-tokens = 4\n"
    )


def settings_in(text: str) -> dict[str, list[str]]:
    """Flag to the rest of its line."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line[:2] == "--"}


def test_a_dry_run_says_where_each_setting_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    load("sample").main(["sum.yaml", "--seed", "3", "--dry-run"], standalone_mode=False)
    out, err = capsys.readouterr()
    assert [json.loads(line)["task_id"] for line in out.splitlines()] == ["sum"]
    found = settings_in(err)
    assert found["--seed"] == ["3", "option"]
    assert found["--top-k"] == ["7", "HYDRAGEN_TOP_K"]
    assert found["--temperature"] == ["0.5", "hydragen.toml:", "[sample]", "temperature"]
    assert found["--stop"][-3:] == ["hydragen.toml:", "[sample]", "stop"]
    assert found["--max-tokens"] == ["256", "default"]
    assert found["--memory"] == ["-", "default"]
    assert "tiny, float32 on cpu, " in err
    load("sample").main(["sum.yaml", "--dry-run", "-q"], standalone_mode=False)
    assert capsys.readouterr().err == ""


def test_verbose_commands_say_it_first(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["sum.yaml", "-n", "2", "-v", "-o", "run", "--no-cache"]
    assert load("run").main(args, standalone_mode=False) == 0
    err = capsys.readouterr().err
    assert settings_in(err)["--max-tokens"] == ["4", "hydragen.toml:", "[run]", "max-tokens"]
    assert err.startswith("--samples ")
    manifest = json.loads((own_home / "run" / "samples.jsonl.manifest.json").read_text())
    assert manifest["sessions"][0]["options"] == {
        "--samples": ["2", "option"],
        "--output": ["run", "option"],
        "--max-tokens": ["4", "hydragen.toml: [run] max-tokens"],
        "--top-k": ["7", "HYDRAGEN_TOP_K"],
        "--no-cache": ["yes", "option"],
        "--verbose": ["yes", "option"],
    }
    page = (own_home / "run" / "report.html").read_text()
    assert "hydragen.toml: [run] max-tokens" in page


def test_what_the_model_suggests_is_said(
    own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tools that take the model's own temperature draw other samples without being told to."""
    for file in MODEL_DIR.iterdir():
        if file.suffix in (".json", ".safetensors"):
            (own_home / file.name).symlink_to(file)
    stated = json.loads((MODEL_DIR / "generation_config.json").read_text())
    (own_home / "generation_config.json").unlink()
    (own_home / "generation_config.json").write_text(
        json.dumps(stated | {"temperature": 0.5, "top_k": 20, "top_p": 1.0})
    )
    said = "its generation_config.json suggests --top-k 20, which holds only where given"
    args = ["sum.yaml", "--model", str(own_home), "-n", "2", "--max-tokens", "4", "--top-k"]
    for more in (["--dry-run"], ["-o", "out.jsonl"]):
        load("sample").main([*args, "5", *more], standalone_mode=False)
        assert said in capsys.readouterr().err  # the file's temperature is that of hydragen.toml
        load("sample").main([*args, "20", *more, "--force"], standalone_mode=False)
        assert "generation_config" not in capsys.readouterr().err
