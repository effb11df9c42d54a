"""`hydragen report` writes a page from the files of a run, and covers none of them."""

from pathlib import Path

import pytest

from hydragen_cli.program import load
from hydragen_tree.errors import InputError
from tests.results.report_run import write_run


def report(*args: str) -> None:
    load("report").main(list(args), prog_name="hydragen report", standalone_mode=False)


def test_a_run_becomes_a_page(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(own_home / "night")
    report("night")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("report.html: written, ")
    page = Path("report.html").read_text(encoding="utf-8")
    assert "<h1>night</h1>" in page
    with pytest.raises(InputError, match="exists; name another file, or use --force"):
        report("night/verdicts.jsonl")
    report("night/verdicts.jsonl", "--force", "--quiet")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["samples.jsonl", "verdicts.jsonl", "samples.jsonl.manifest.json"])
def test_no_file_of_the_run_is_covered(own_home: Path, name: str) -> None:
    write_run(own_home / "run")
    before = Path("run", name).read_bytes()
    with pytest.raises(InputError, match="is the "):
        report("run", "-o", f"run/{name}", "--force")
    assert Path("run", name).read_bytes() == before
