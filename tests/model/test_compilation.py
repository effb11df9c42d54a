"""When compiling is earned, what is noted of it, and that a model compiled late is the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, PreTrainedConfig

from hydragen_tree.model import adapter
from hydragen_tree.model.compilation import note_compiled, weigh_compiling
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings

CPU, BF16 = torch.device("cpu"), torch.bfloat16
LLAMA_8B = {"hidden_size": 4096, "num_hidden_layers": 32}
SMOLLM_135M = {"hidden_size": 576, "num_hidden_layers": 30}
SHIPPED = {"hidden_size": 256, "num_hidden_layers": 5}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def config(**sizes: int) -> PreTrainedConfig:
    return AutoConfig.for_model("llama", **sizes)


@pytest.mark.parametrize(
    ("rows", "measured_ms"), [(32, 8.43 - 6.15), (128, 9.80 - 7.31), (1024, 35.26 - 30.29)]
)
def test_a_step_saves_what_was_measured(rows: int, measured_ms: float) -> None:
    one = weigh_compiling(config(**LLAMA_8B), BF16, CPU, samples=rows, rows=rows, max_tokens=2000)
    assert one.steps == 1000
    assert one.saved_s == pytest.approx(measured_ms, rel=0.05)


@pytest.mark.parametrize(
    ("sizes", "samples", "max_tokens", "first", "again"),
    [
        pytest.param(SHIPPED, 1000, 256, False, False, id="shipped"),
        pytest.param(LLAMA_8B, 100, 64, False, False, id="8B-short"),
        pytest.param(LLAMA_8B, 6 * 1024, 384, False, False, id="8B-nearly"),
        pytest.param(LLAMA_8B, 6 * 1024, 512, True, True, id="8B-long"),
        pytest.param(SMOLLM_135M, 16_400, 256, False, False, id="135M-HumanEval"),
        pytest.param(SMOLLM_135M, 50_000, 256, True, True, id="135M-long"),
    ],
)
def test_only_long_runs_compile(
    sizes: dict[str, int], samples: int, max_tokens: int, first: bool, again: bool
) -> None:
    model = config(**sizes)
    run = {"samples": samples, "rows": min(samples, 1024), "max_tokens": max_tokens}
    before = weigh_compiling(model, BF16, CPU, **run)
    note_compiled(model, BF16, CPU)
    after = weigh_compiling(model, BF16, CPU, **run)
    assert (before.is_worth_it, after.is_worth_it) == (first, again)
    assert (before.is_kept, after.is_kept) == (False, True)
    assert before.spent_s > after.spent_s
    assert str(after).startswith("yes" if again else "no")


def test_what_was_compiled_is_noted_for_its_model_and_dtype_only() -> None:
    run = {"samples": 8, "rows": 8, "max_tokens": 8}
    small, large = config(hidden_size=64), config(hidden_size=128)
    note_compiled(small, BF16, CPU)
    assert weigh_compiling(small, BF16, CPU, **run).is_kept
    assert not weigh_compiling(small, torch.float32, CPU, **run).is_kept
    assert not weigh_compiling(large, BF16, CPU, **run).is_kept


def test_a_cache_that_cannot_be_written_stops_nobody(own_cache: Path) -> None:
    own_cache.write_text("a file in the folder's place")
    note_compiled(config(), BF16, CPU)
    assert not weigh_compiling(config(), BF16, CPU, samples=1, rows=1, max_tokens=1).is_kept


@pytest.fixture
def eager_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Layers are traced, but run as they are: a CPU's packed products have no compiled form."""
    whole = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **_: whole(self, backend="eager", dynamic=True)
    )
    monkeypatch.setattr(adapter, "pack_projections", lambda _: 0)
    yield
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # by torch.compile's import
def test_a_model_compiled_between_runs_draws_the_same(
    random_model: Path, eager_compiler: None
) -> None:
    """Another model, made afterwards, is not compiled and changes nothing for the first."""
    settings = SamplingSettings(max_tokens=12)

    def draw(sampler: Sampler) -> dict[int, list[int]]:
        drawn = sampler.sample(["a b c", "a b d"], 4, settings)
        return {hash((one.task_id, one.sample_index)): one.token_ids for one in drawn}

    sampler = Sampler.from_pretrained(str(random_model), device="cpu")
    expected = draw(sampler)
    sampler.model.compile()
    sampler.model.compile()
    assert draw(sampler) == expected
    other = Sampler.from_pretrained(str(random_model), device="cpu")
    assert draw(other) == expected
    assert not other.model.is_compiled
    torch.compiler.reset()  # the first is traced anew, beside the second
    assert draw(sampler) == expected
