"""Layers that see the last tokens only have an arena of their own, which gives up the others.

Samples are those of dense transformers beyond every window, and of a run that keeps all; no page is
lost. On the host everywhere; on the device, captured or under Triton's interpreter.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from hydragen_tree.model import loading
from hydragen_tree.model.cache import KVCache
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.loop import Loop
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings
from tests.model.shrunken import shrunken

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ON_DEVICE = INTERPRETED or torch.cuda.is_available()
DEVICE = "cpu" if INTERPRETED or not ON_DEVICE else "cuda"
pytestmark = [] if INTERPRETED or not ON_DEVICE else [pytest.mark.gpu]
BACKEND = "triton" if ON_DEVICE else "auto"
# kinds whose small form sees 24 tokens in some layers, or in all, or those of a chunk of 24
KINDS = ["gemma3_text", "gpt_oss", "mistral", "llama4_text"]
END = 256
ROOT, OWN = (90, 40) if INTERPRETED else (400, 150)


def saved(kind: str, tokenizer: Path, path: Path) -> Path:
    """A small model of random weights with the byte-level tokenizer of `random_model`."""
    changes: dict[str, Any] = {"max_position_embeddings": 2048}
    if kind == "mistral":
        changes["sliding_window"] = 24
    config = shrunken(kind, **changes)
    config.vocab_size, config.eos_token_id, config.bos_token_id = 257, END, None
    config.pad_token_id = None
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * (0.2 if parameter.ndim > 1 else 0.05)
    model.save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).write_bytes((tokenizer / name).read_bytes())
    return path


def prompts(own: int = 2) -> list[Prompt]:
    """Long ones that share a root, one of which it is itself, and a short stranger."""
    rng = np.random.default_rng(0)
    root = rng.integers(0, 250, ROOT)
    texts = [root, rng.integers(0, 250, 9)]
    texts += [np.append(root, rng.integers(0, 250, OWN)) for _ in range(own)]
    return [Prompt(f"p{at}", 0, text.astype(np.int32), ()) for at, text in enumerate(texts)]


def drawn(
    path: Path, settings: SamplingSettings, n: int, backend: str, **options: Any
) -> tuple[dict[tuple[str, int], Sample], Sampler]:
    options = {"compiled": False, "attention": backend, **options}
    sampler = Sampler.from_pretrained(str(path), device=DEVICE, dtype="float32", **options)
    if options["compiled"]:
        sampler.model.compile()  # which a sampler does on a GPU alone
    samples = list(sampler.sample(prompts(), n, settings))
    return {(one.task_id, one.sample_index): one for one in samples}, sampler


@pytest.fixture
def caches(monkeypatch: pytest.MonkeyPatch) -> list[KVCache]:
    """The caches of all runs; each is empty once its run is over."""
    made: list[KVCache] = []
    samples = Loop.samples

    def watched(self: Loop, *rest: Any) -> Any:
        made.append(self.cache)
        yield from samples(self, *rest)

    monkeypatch.setattr(Loop, "samples", watched)
    return made


def check_nothing_is_lost(cache: KVCache) -> None:
    for arena in cache.arenas:
        assert (arena.users >= 0).all()
        # segments may stay to the end, tails may not
        assert arena.users.tolist() == arena.of_segments.tolist()


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_greedy_samples_are_those_of_dense_transformers(
    kind: str, random_model: Path, tmp_path: Path, caches: list[KVCache]
) -> None:
    path = saved(kind, random_model, tmp_path)
    new = 4 if INTERPRETED else 40
    found, _ = drawn(path, SamplingSettings(temperature=0.0, max_tokens=new), 1, BACKEND)
    [cache] = caches
    assert cache.windowed is not None
    check_nothing_is_lost(cache)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    for prompt in prompts():
        whole = torch.from_numpy(prompt.token_ids.astype(np.int64))[None]
        answer = list(found[prompt.task_id, 0].token_ids)
        assert len(answer) == new or answer[-1] == END
        text = torch.cat([whole, torch.tensor([answer])], 1)
        logits = model(text, use_cache=False).logits[0, whole.shape[1] - 1 : -1]
        assert logits.argmax(-1).tolist() == answer


@pytest.mark.parametrize(
    "lacking", ["nothing", "memory"] if not ON_DEVICE else ["nothing", "rows", "memory"]
)
def test_samples_are_those_of_a_run_that_keeps_all(
    lacking: str,
    random_model: Path,
    tmp_path: Path,
    caches: list[KVCache],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With little memory rows leave, and segments too, and are computed again."""
    path = saved("gemma3_text", random_model, tmp_path)
    n, new = (2, 3) if INTERPRETED else (6, 60)
    settings = SamplingSettings(temperature=1.0, max_tokens=new, seed=5, logprobs=True)
    found, sampler = drawn(path, settings, n, BACKEND)
    shape, page = sampler.source.shape, sampler.page_tokens
    pages = (ROOT + OWN + new) // page + 8
    limits = {
        "nothing": {},
        "rows": {"max_rows": 3},
        "memory": {"memory_bytes": pages * page * shape.token_bytes},
    }
    if lacking != "nothing":
        found, sampler = drawn(path, settings, n, BACKEND, **limits[lacking])
    monkeypatch.setattr(loading, "with_windows", lambda shape, config: shape)
    expected, whole = drawn(path, settings, n, "torch")
    assert not whole.source.shape.windowed
    assert caches[-1].windowed is None
    for cache in caches:
        check_nothing_is_lost(cache)
    if ON_DEVICE:
        assert sampler.stats.steps_host == 0
    assert found.keys() == expected.keys()
    for name, sample in found.items():
        assert sample.token_ids == expected[name].token_ids
        assert sample.token_logprobs == pytest.approx(expected[name].token_logprobs, abs=1e-3)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # by torch.compile's import
@pytest.mark.parametrize(
    "way",
    [{"kv_dtype": "fp8"}, {"attention": "torch"}, {"compiled": True}],
    ids=lambda way: next(iter(way)),
)
def test_two_arenas_are_one_in_other_ways(
    way: dict[str, Any],
    random_model: Path,
    tmp_path: Path,
    caches: list[KVCache],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if DEVICE == "cpu":
        request.getfixturevalue("eager_compiler")
    path = saved("gemma3_text", random_model, tmp_path)
    settings = SamplingSettings(temperature=0.0, max_tokens=3 if INTERPRETED else 40, logprobs=True)
    found, _ = drawn(path, settings, 1, BACKEND, **way)
    monkeypatch.setattr(loading, "with_windows", lambda shape, config: shape)
    stored = way.get("kv_dtype", "auto")
    expected, _ = drawn(path, settings, 1, "torch", kv_dtype=stored)
    assert [len(cache.arenas) for cache in caches] == [2, 1]
    check_nothing_is_lost(caches[0])
    off = 0.05 if stored == "fp8" else 1e-3  # a hair apart may round to neighbours in 8 bits
    for name, sample in found.items():
        assert sample.token_ids == expected[name].token_ids
        assert sample.token_logprobs == pytest.approx(expected[name].token_logprobs, abs=off)


@pytest.mark.skipif(ON_DEVICE, reason="how many steps a device takes goes by the clock, too")
@pytest.mark.parametrize(("n_prompts", "rows"), [(1, 16), (4, 8)])
def test_long_prompts_leave_room_for_as_many_rows(
    n_prompts: int,
    rows: int,
    random_model: Path,
    tmp_path: Path,
    caches: list[KVCache],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in one arena for all, though each is whole for a while in an arena that holds little."""
    path, rng = saved("gemma3_text", random_model, tmp_path), np.random.default_rng(0)
    texts = [rng.integers(0, 250, 1000).astype(np.int32) for _ in range(n_prompts)]
    long = [Prompt(f"p{at}", 0, text, ()) for at, text in enumerate(texts)]
    settings = SamplingSettings(temperature=1.0, max_tokens=40, seed=5)
    keep, steps = loading.with_windows, []
    for windows in (keep, lambda shape, config: shape):
        monkeypatch.setattr(loading, "with_windows", windows)
        sampler = Sampler.from_pretrained(str(path), dtype="float32", max_rows=rows, drafts="off")
        list(sampler.sample(long, 16 // n_prompts, settings))
        steps.append(sampler.stats.steps_host)
        assert sampler.stats.rows_parked == 0
    assert [len(cache.arenas) for cache in caches] == [2, 1]
    assert steps[0] == steps[1]


@pytest.mark.parametrize(
    "way",
    [
        "late",
        pytest.param(
            "one order",
            marks=pytest.mark.skipif(
                INTERPRETED, reason="its kernels need weights aligned as on a device"
            ),
        ),
    ],
)
def test_where_nothing_may_be_dropped_all_is_kept(
    way: str, random_model: Path, tmp_path: Path, caches: list[KVCache]
) -> None:
    """A prompt that comes late parts a segment where windows would have no keys left."""
    path = saved("gemma3_text", random_model, tmp_path)
    settings = SamplingSettings(temperature=0.0, max_tokens=3 if INTERPRETED else 20)
    expected, _ = drawn(path, settings, 1, "torch")
    root, stranger, *longer = prompts()
    options: dict[str, Any] = {"attention": BACKEND}
    if way == "one order":
        options = {"batch_invariant": True}
    sampler = Sampler.from_pretrained(
        str(path), device=DEVICE, dtype="float32", compiled=False, **options
    )
    if way == "one order":
        samples = list(sampler.sample(prompts(), 1, settings))
    else:
        part = Prompt("part", 0, root.token_ids[: ROOT // 2], ())
        rest = iter([[part, *longer]])
        come = sampler.sample([root, stranger], 1, settings, late=lambda _: next(rest, None))
        samples = list(come)
        assert sampler.stats.prompts_joined == 3
    assert caches[-1].windowed is None
    check_nothing_is_lost(caches[-1])
    found = {one.task_id: one.token_ids for one in samples}
    assert {name: found[name] for name, _ in expected} == {
        name: one.token_ids for (name, _), one in expected.items()
    }


def test_less_is_held(random_model: Path, tmp_path: Path, caches: list[KVCache]) -> None:
    """Of each segment what is seen of it; and as much is said beforehand."""
    path = saved("gemma3_text", random_model, tmp_path)
    settings = SamplingSettings(temperature=1.0, max_tokens=2, seed=5)
    _, sampler = drawn(path, settings, 1, BACKEND)
    shape, [cache] = sampler.source.shape, caches
    assert 0 < len(shape.windowed) < shape.layers
    outline = sampler.outline(prompts(), 1, None, 2)
    beside = ROOT if outline.folds else 0  # a GPU reads so short a root again with what is below
    segments = ROOT, 9, beside + OWN, beside + OWN
    full = shape.layers - len(shape.windowed)
    held = full * sum(segments) + len(shape.windowed) * sum(min(24, one) for one in segments)
    assert outline.savings.kv_bytes == held * shape.layer_token_bytes
    windowed = cache.windowed
    assert windowed is not None
    page = cache.page_tokens
    most = sum(min(-(-n // page), -(-24 // page) + 1) for n in segments)
    assert np.count_nonzero(windowed.of_segments) <= most
