"""`hydragen models`: what stands in its table; whether it is true is tested with the models."""

import json

import pytest

from hydragen_cli.program import load
from hydragen_tree.errors import InputError


def test_what_runs_and_what_is_refused_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    load("models").main(["gemma3_text", "mamba2", "qwen3_moe"], standalone_mode=False)
    printed = capsys.readouterr()
    rows = dict(line.split(maxsplit=1) for line in printed.out.splitlines())
    assert rows["gemma3_text"] == "exact; windows of 4,096 tokens"
    assert rows["qwen3_moe"] == "exact"
    assert rows["mamba2"].startswith("refused: mamba2 is attention-free")
    assert "2 exact, 1 refused" in printed.err
    load("models").main(["llama4_text", "--json"], standalone_mode=False)
    (record,) = json.loads(capsys.readouterr().out)
    assert record["windows"] == [{"tokens": 8192, "is_chunked": True}]
    assert record["why_not"] is None
    with pytest.raises(InputError, match="no architecture of transformers"):
        load("models").main(["nothing-like-it"], standalone_mode=False)
