"""The Python that the README shows runs as it stands; the files that pages name are there."""

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(ROOT.glob("*.md"))
BLOCKS = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
)
# Links, and what stands in back-ticks and begins with a folder of the repository.
_LINK = re.compile(r"\]\(([^):#]+)\)")
_PATH = re.compile(r"`((?:cli|hydragen_tree|kernels|problems|tests|docs|benchmarks)/[\w./-]*\w)`")


@pytest.mark.parametrize("code", BLOCKS, ids=[code.splitlines()[0] for code in BLOCKS])
def test_examples_run(
    code: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # where `problems/` is
    names: dict[str, Any] = {}
    exec(compile(code.replace("n=100", "n=2"), "README.md", "exec"), names)
    if "sample" in names:
        assert re.match(r"[01] ", capsys.readouterr().out)
    if "summary" in names:
        assert sum(names["summary"].verdicts.values()) == 2
    if "tree_attention" in names:
        assert names["out"].shape == (4, 8, 64)


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_files_that_a_page_names_are_there(page: Path) -> None:
    if page.name == "CHANGELOG.md":  # tells of what was
        return
    text = page.read_text()
    named = {name for name in _LINK.findall(text) + _PATH.findall(text) if "NAME" not in name}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
