"""Steps on the device equal steps on the host: captured graphs on a GPU, else the interpreter."""

import gc
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from hydragen_kernels.batch_state import RowState
from hydragen_kernels.segment_tiles import SegmentTiles
from hydragen_tree.branch import decoder, device_freezing, forecast, recording, step_plans
from hydragen_tree.branch.device_batch import NewRows, row_fields
from hydragen_tree.branch.host_stepper import decode_tokens
from hydragen_tree.branch.prefill import Prefill
from hydragen_tree.branch.residency import Residency
from hydragen_tree.model.cache import KVCache
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.trie.trie import Trie

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [
    *([] if INTERPRETED else [pytest.mark.gpu]),
    pytest.mark.skipif(
        not (INTERPRETED or torch.cuda.is_available()), reason="needs CUDA or the interpreter"
    ),
]


@pytest.fixture(scope="module")
def small_model(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer, one key-value head: the interpreter takes a second a step even so."""
    path = tmp_path_factory.mktemp("small-model")
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(
        random_model,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        initializer_range=0.5,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).write_bytes((random_model / name).read_bytes())
    return path


@pytest.fixture(scope="module")
def windowed_model(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sizes, with layers that see less than any of the prompts."""
    path = tmp_path_factory.mktemp("windowed-model")
    torch.manual_seed(0)
    small = AutoConfig.from_pretrained(small_model).to_dict()
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size", "head_dim")
    sizes = {name: small[name] for name in (*names, "num_attention_heads", "num_key_value_heads")}
    config = AutoConfig.for_model("mistral", **sizes, sliding_window=17, initializer_range=0.5)
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).write_bytes((small_model / name).read_bytes())
    return path


def prompts() -> list[Prompt]:
    """A root shared by two prompts, one of which it is itself, and a stranger."""
    rng = np.random.default_rng(0)
    root = rng.integers(0, 250, 40).astype(np.int32)
    longer = np.append(root, rng.integers(0, 250, 9)).astype(np.int32)
    other = rng.integers(0, 250, 20).astype(np.int32)
    return [
        Prompt("a", 0, root, ("`",)),
        Prompt("a", 1, longer, ("`",)),
        Prompt("b", 0, other, ()),
    ]


def draw(
    model: Path,
    settings: SamplingSettings,
    backend: str,
    n: int,
    asked: slice = slice(None),
    **options: Any,
) -> dict[tuple[str, int], Sample]:
    sampler = Sampler.from_pretrained(
        str(model), device=DEVICE, dtype="float32", attention=backend, compiled=False, **options
    )
    samples = list(sampler.sample(prompts()[asked], n, settings))
    stats = sampler.stats
    assert stats.tokens_sampled == sum(sample.n_tokens for sample in samples)
    is_fused = backend in ("triton", "ordered")
    assert (stats.steps_device > 0) == is_fused
    assert (stats.steps_host > 0) != is_fused
    if INTERPRETED:  # a page of a GPU holds all that a row draws
        assert (stats.rows_parked > 0) == ("memory_bytes" in options)
    return {(sample.task_id, sample.sample_index): sample for sample in samples}


@pytest.mark.parametrize(
    ("settings", "n", "options"),
    [
        (SamplingSettings(temperature=1.0, max_tokens=12, logprobs=True), 4, {}),
        (SamplingSettings(temperature=0.7, top_k=40, top_p=0.9, max_tokens=6), 4, {"max_rows": 3}),
        (SamplingSettings(temperature=0.0, max_tokens=19), 3, {}),
        (SamplingSettings(temperature=1.0, max_tokens=9), 4, {"kv_dtype": "fp8"}),
        (
            SamplingSettings(temperature=1.0, max_tokens=18),
            3,
            {"memory_bytes": 15_500 if INTERPRETED else 80_000},
        ),
    ],
    ids=["together", "waiting", "greedy", "fp8", "parked"],
)
def test_device_steps_equal_host_steps(
    settings: SamplingSettings, n: int, options: dict[str, Any], small_model: Path
) -> None:
    kv_dtype = options.get("kv_dtype", "auto")
    expected = draw(small_model, settings, "torch", n, kv_dtype=kv_dtype)
    found = draw(small_model, settings, "triton", n, **options)
    assert sorted(found) == sorted(expected)
    for name, sample in found.items():
        assert sample.token_ids == expected[name].token_ids
        assert sample.completion == expected[name].completion
        assert sample.finish_reason == expected[name].finish_reason
        assert sample.logprob == pytest.approx(expected[name].logprob, rel=1e-3)
        if settings.logprobs:
            assert sample.token_logprobs == pytest.approx(expected[name].token_logprobs, abs=1e-3)


def test_steps_of_one_order_equal_host_steps(small_model: Path) -> None:
    """Memory is so short that rows leave, and come back with their tails computed again."""
    settings = SamplingSettings(temperature=1.0, max_tokens=18, logprobs=True)
    memory = 15_500 if INTERPRETED else 80_000
    expected = draw(small_model, settings, "torch", 3)
    found = draw(small_model, settings, "ordered", 3, memory_bytes=memory)
    for name, sample in found.items():
        assert sample.token_ids == expected[name].token_ids
        assert sample.token_logprobs == pytest.approx(expected[name].token_logprobs, abs=1e-3)


@pytest.mark.parametrize("kind", ["small", "windowed"])
@pytest.mark.parametrize("backend", ["triton", "ordered"])
def test_tails_that_rows_share_are_frozen_on_the_device(
    backend: str, kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompt ends within a group of keys that are added up together."""
    model: Path = request.getfixturevalue(f"{kind}_model")
    rows: list[int] = []  # of batches, below segments that were just made
    below = device_freezing.hung_below

    def counted(fields: torch.Tensor, pages: torch.Tensor, *rest: Any) -> Any:
        after, left = below(fields, pages, *rest)
        rows.append(int((RowState(*after).groups != RowState(*fields).groups).sum()))
        return after, left

    monkeypatch.setattr(device_freezing, "_PLAN_S", -np.inf)
    monkeypatch.setattr(forecast, "LEAST_ROWS", 4)  # or forks to come would reserve all pages
    monkeypatch.setattr(device_freezing, "hung_below", counted)
    settings = SamplingSettings(temperature=0.15, max_tokens=34, logprobs=True)
    expected = draw(model, settings, "torch", 7, slice(2, 3))
    found = draw(model, settings, backend, 7, slice(2, 3))
    if INTERPRETED:  # a page of a GPU holds all that a row draws
        assert max(rows) > 1
    for name, sample in found.items():
        assert sample.token_ids == expected[name].token_ids
        assert sample.token_logprobs == pytest.approx(expected[name].token_logprobs, abs=1e-3)


def test_garbage_is_not_collected_within_a_capture() -> None:
    assert gc.isenabled()
    with recording._nothing_let_go():
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.parametrize("backend", ["triton", "ordered"])
def test_layers_see_through_windows_on_the_device(backend: str, windowed_model: Path) -> None:
    settings = SamplingSettings(temperature=1.0, max_tokens=4)
    expected = draw(windowed_model, settings, "torch", 3)
    found = draw(windowed_model, settings, backend, 3)
    assert {name: one.token_ids for name, one in found.items()} == {
        name: one.token_ids for name, one in expected.items()
    }


def test_tables_grow_after_a_capture(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables hold the first batch's plan and no more; the second one's has more segments."""

    class Tight(SegmentTiles):
        def __init__(self, plan: Any, device: Any, capacity: int = 0, rows: int = 0) -> None:
            super().__init__(plan, device, 0, rows)

    monkeypatch.setattr(step_plans, "SegmentTiles", Tight)
    sampler = Sampler.from_pretrained(
        str(small_model), device=DEVICE, dtype="float32", attention="triton", compiled=False
    )
    source, model = sampler.source, sampler.model
    trie = Trie.build(prompt.token_ids for prompt in prompts())
    cache = KVCache(source.shape, 32, 16, source.dtype, model.device, True)
    tree = Residency(trie, cache)
    segments = list(range(len(trie.segments)))
    assert tree.place(segments)
    Prefill(model, trie, tree.table, cache, 64).segments(segments)
    settings = SamplingSettings(max_tokens=8)
    stops = np.zeros((1, source.config.vocab_size), np.int16)
    steps = decoder.Decoder(model, cache, source.heads, settings, stops, 4, max_levels=3)
    room, left = [], np.empty(0, np.int64)
    for hung in (trie.leaf_segments[[0, 0]], trie.leaf_segments):
        n, hung = hung.size, hung.astype(np.int32)
        own, group, count = np.unique(hung, return_inverse=True, return_counts=True)
        positions = [trie.end(segment) for segment in hung.tolist()]
        fields = [
            RowState(5 + row, positions[row], 0, 1, int(group[row]), 0, -1, 0, 0)
            for row in range(n)
        ]
        rows = np.arange(n)
        pages = np.full((n, steps.batch.state.pages.shape[1]), -1, np.int32)
        keys = np.zeros(n, np.uint64)
        steps.batch.give(cache.take(n))
        steps.batch.set_groups(np.arange(own.size), count)
        states = np.full(n, -1, np.int32)
        steps.batch.rearrange(NewRows(row_fields(fields), pages, rows, rows, keys, states), left)
        edges = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
        steps.plan([tree.table.path_items(own, count.astype(np.int32))], edges, n)
        room.append(len(steps._plans._tables[0].tiles))
        found, left = steps.logits(n).clone(), rows
        expected = decode_tokens(
            model,
            cache,
            tree.table,
            np.arange(5, 5 + n, dtype=np.int32),
            np.array(positions, np.int32),
            hung,
            steps.batch.state.pages[:n].cpu().numpy(),
            np.zeros(n, np.int32),
        )
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert room[0] < room[1]


def test_prompts_that_come_late_meet_keys_from_within_a_page(
    small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first prompt's segment is parted after 67 tokens, and again after 65, while rows step.

    They step on in the chunks in which others draw their first tokens.
    """
    rng = np.random.default_rng(3)
    root = rng.integers(0, 250, 67)
    parts = [np.append(root, [1, 2, 3]), np.append(root, [4]), np.append(root[:65], [5, 6])]
    late = [Prompt(f"p{i}", 0, part.astype(np.int32), ()) for i, part in enumerate(parts)]
    settings = SamplingSettings(temperature=1.0, max_tokens=8)
    samplers = [
        Sampler.from_pretrained(
            str(small_model), device=DEVICE, dtype="float32", attention=backend, max_rows=16
        )
        for backend in ("torch", "triton")
    ]
    expected = {(s.task_id, s.sample_index): s for s in samplers[0].sample(late, 2, settings)}
    first, coming = late[:1], late[1:]

    def more(wait: bool) -> list[Prompt] | None:
        return [coming.pop(0)] if coming else None

    rides: list[bool] = []
    launch = decoder.Decoder.launch

    def recorded(self: Any, choice: Any, steps: int, fresh: torch.Tensor | None = None) -> Any:
        rides.append(fresh is not None and steps > 0)
        return launch(self, choice, steps, fresh)

    monkeypatch.setattr(decoder.Decoder, "launch", recorded)
    found = {
        (s.task_id, s.sample_index): s for s in samplers[1].sample(first, 2, settings, late=more)
    }
    assert any(rides)
    assert {name: one.token_ids for name, one in found.items()} == {
        name: one.token_ids for name, one in expected.items()
    }
    stats = samplers[1].stats
    assert (stats.steps_host, stats.prompts_joined) == (0, 2)
    assert stats.prefilled_tokens == 70 + 1 + 2
