"""A notebook shows a sampler, before and after a run."""

import re
from pathlib import Path

from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings


def shown(sampler: Sampler) -> dict[str, str]:
    return dict(re.findall(r"<tr><th[^>]*>(.*?)</th><td[^>]*>(.*?)</td></tr>", view(sampler)))


def view(sampler: Sampler) -> str:
    return sampler._repr_html_()


def test_a_sampler_shows_itself(random_model: Path, tmp_path: Path) -> None:
    named = tmp_path / "a & <b>"
    named.symlink_to(random_model)
    sampler = Sampler.from_pretrained(str(named), device="cpu", attention="torch", max_rows=8)
    facts = shown(sampler)
    assert "a &amp; &lt;b&gt;" in facts["model"]
    assert facts["model"].endswith("float32 on cpu")
    assert facts["attention"] == "torch"
    assert facts["context"] == "512 tokens"
    # 2 layers, a key and a value, 2 heads of 16 numbers of 4 bytes
    assert facts["keys and values"] == "float32, 512 bytes a token; measured"
    assert "latest run" not in facts
    assert sampler._model is None  # no weights were loaded for it
    drawn = list(sampler.sample(["ab"], 3, SamplingSettings(max_tokens=4)))
    facts = shown(sampler)
    assert facts["latest run"] == "3 of 3 samples"
    tokens = sum(sample.n_tokens for sample in drawn)
    assert facts["drawn"].startswith(f"{tokens} tokens from ")
    assert facts["drawn"].endswith("2 prompt tokens for 6")
    assert "<b>" not in view(sampler)
