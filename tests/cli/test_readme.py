"""The Python that the README shows runs as it stands."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=[code.splitlines()[0] for code in BLOCKS])
def test_examples_run(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    exec(compile(code.replace("n=100", "n=2"), "README.md", "exec"), names)
    if "Sampler" in names:
        assert re.match(r"[01] ", capsys.readouterr().out)
    if "tree_attention" in names:
        assert names["out"].shape == (4, 8, 64)


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 2
