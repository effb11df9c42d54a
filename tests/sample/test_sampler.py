"""A forked run equals independent runs, for any batch and any memory."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from hydragen_kernels.random import uniforms
from hydragen_tree.branch.drawing import filtered, stream_key
from hydragen_tree.branch.prefill import Prefill
from hydragen_tree.errors import CapacityError, InputError
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample import records
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings

SETTINGS = SamplingSettings(temperature=0.3, max_tokens=40)


def prompts() -> list[Prompt]:
    """A root shared by three prompts, one of which is the root itself, and a stranger."""
    rng = np.random.default_rng(0)
    root = rng.integers(0, 250, 60)

    def prompt(task: str, variant: int, tokens: np.ndarray, *stop: str) -> Prompt:
        return Prompt(task, variant, tokens.astype(np.int32), stop)

    return [
        prompt("a", 0, np.append(root, rng.integers(0, 250, 30)), "`"),
        prompt("a", 1, np.append(root, rng.integers(0, 250, 9)), "`"),
        prompt("b", 0, root),
        prompt("c", 0, rng.integers(0, 250, 40)),
    ]


def run(model: Path, n: int, settings: SamplingSettings = SETTINGS, **options: object) -> dict:
    sampler = Sampler.from_pretrained(str(model), **options)
    samples = list(sampler.sample(prompts(), n, settings))
    assert sampler.stats.samples_done == sampler.stats.samples_total == len(samples)
    by_name = {(sample.task_id, sample.sample_index): sample for sample in samples}
    assert len(by_name) == len(samples)
    return by_name


@pytest.fixture(scope="module")
def samples(random_model: Path) -> dict[tuple[str, int], Sample]:
    return run(random_model, 24)


def test_every_token_is_the_one_an_independent_run_draws(
    samples: dict[tuple[str, int], Sample], random_model: Path
) -> None:
    """Each sample alone, by dense transformers and its own random numbers."""
    dense = AutoModelForCausalLM.from_pretrained(random_model).eval()
    by_variant = {(prompt.task_id, prompt.variant): prompt for prompt in prompts()}
    assert sorted(samples) == sorted((task, i) for task in "abc" for i in range(24))
    for sample in samples.values():
        assert sample.prompt_variant == (sample.sample_index % 2 if sample.task_id == "a" else 0)
        prompt = by_variant[sample.task_id, sample.prompt_variant].token_ids
        tokens = np.array(sample.token_ids)
        whole = torch.from_numpy(np.append(prompt, tokens).astype(np.int64))[None]
        with torch.inference_mode():
            logits = dense(whole).logits[0, prompt.size - 1 : -1]
        picked = logits.log_softmax(-1)[torch.arange(tokens.size), torch.from_numpy(tokens)]
        assert sample.logprob == pytest.approx(float(picked.sum()), rel=1e-3, abs=1e-3)
        key = stream_key(0, sample.task_id, sample.prompt_variant, sample.sample_index)
        at = uniforms(np.full(tokens.size, key, np.uint64), np.arange(tokens.size))
        cumulative = filtered(logits, SETTINGS).double().cumsum(-1).numpy()
        cumulative = np.pad(cumulative / cumulative[:, -1:], ((0, 0), (1, 0)))
        steps = np.arange(tokens.size)
        tie = 1e-5
        assert (cumulative[steps, tokens] - tie <= at).all()
        assert (at <= cumulative[steps, tokens + 1] + tie).all()


@pytest.mark.parametrize(
    ("n", "options"),
    [
        (10, {}),
        (24, {"max_rows": 1}),
        (24, {"max_rows": 7}),
        (24, {"memory_bytes": 160 * 1024}),
        (24, {"memory_bytes": 120 * 1024, "max_rows": 16}),
    ],
    ids=str,
)
def test_a_sample_does_not_depend_on_n_batch_or_memory(
    samples: dict[tuple[str, int], Sample], random_model: Path, n: int, options: dict
) -> None:
    again = run(random_model, n, **options)
    assert all(samples[name].token_ids == sample.token_ids for name, sample in again.items())
    assert len(again) == 3 * n


def test_done_samples_are_not_drawn_again(
    samples: dict[tuple[str, int], Sample], random_model: Path
) -> None:
    sampler = Sampler.from_pretrained(str(random_model))
    done = {"a": {0, 1, 5}, "b": set(range(24))}
    rest = list(sampler.sample(prompts(), 24, SETTINGS, done=done))
    assert len(rest) == 21 + 24
    for sample in rest:
        assert sample.sample_index not in done.get(sample.task_id, ())
        assert sample.token_ids == samples[sample.task_id, sample.sample_index].token_ids


def test_many_that_end_together_are_finished_in_portions(
    random_model: Path, samples: dict[tuple[str, int], Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_PORTION", 2)
    found = run(random_model, 24)
    assert found == samples
    assert list(found) == list(samples)


def test_greedy_is_one_row_a_prompt(random_model: Path) -> None:
    sampler = Sampler.from_pretrained(str(random_model))
    greedy = SamplingSettings(temperature=0.0, max_tokens=12)
    samples = list(sampler.sample(prompts(), 50, greedy))
    assert len({(s.task_id, s.prompt_variant, s.token_ids) for s in samples}) == 4
    assert sampler.stats.tokens_sampled == sum(s.n_tokens for s in samples)
    assert sampler.stats.rows_computed <= 4 * 12


def test_forks_compute_a_distinct_history_once(
    samples: dict[tuple[str, int], Sample], random_model: Path
) -> None:
    sampler = Sampler.from_pretrained(str(random_model))
    drawn = list(sampler.sample(prompts(), 24, SETTINGS))
    histories = {
        (s.task_id, s.prompt_variant, s.token_ids[:length])
        for s in drawn
        for length in range(s.n_tokens)
    }
    assert sampler.stats.rows_computed == len(histories)
    assert sampler.stats.prefilled_tokens == sampler.stats.prompt_tokens


def test_finish_reasons_and_stop_strings(samples: dict[tuple[str, int], Sample]) -> None:
    for sample in samples.values():
        assert "`" not in sample.completion or sample.task_id != "a"
        if sample.finish_reason == "length":
            assert sample.n_tokens == SETTINGS.max_tokens
        if sample.finish_reason == "eos":
            assert sample.token_ids[-1] == 256


def test_a_stop_string_ends_its_own_task_only(random_model: Path) -> None:
    """Of two tasks with one prompt, so that they share a leaf."""
    tokens = np.arange(40, dtype=np.int32)
    settings = SamplingSettings(temperature=1.0, max_tokens=30)
    stops = tuple("abcdefgh")
    tasks = [Prompt("free", 0, tokens, ()), Prompt("ended", 0, tokens, stops)]
    sampler = Sampler.from_pretrained(str(random_model))

    def draw(prompts: list[Prompt]) -> dict[tuple[str, int], tuple[str, str]]:
        drawn = sampler.sample(prompts, 20, settings)
        return {(s.task_id, s.sample_index): (s.completion, s.finish_reason) for s in drawn}

    together = draw(tasks)
    assert together == draw(tasks[:1]) | draw(tasks[1:])
    assert {reason for (task, _), (_, reason) in together.items() if task == "ended"} >= {"stop"}
    assert "stop" not in {reason for (task, _), (_, reason) in together.items() if task == "free"}


def test_only_prompts_with_samples_to_draw_are_counted(random_model: Path) -> None:
    sampler = Sampler.from_pretrained(str(random_model))
    done = {"a": {0, 1}, "b": {0, 1}, "c": {0}}
    assert len(list(sampler.sample(prompts(), 2, SETTINGS, done=done))) == 1
    stats = sampler.stats
    assert stats.prefilled_tokens == stats.prompt_tokens == stats.prompt_tokens_unshared == 40


def test_a_stop_string_across_tokens_is_found_and_cut(random_model: Path) -> None:
    sampler = Sampler.from_pretrained(str(random_model))
    plain = SamplingSettings(temperature=0.3, max_tokens=30)
    first = next(s for s in sampler.sample([prompts()[2]], 4, plain) if s.finish_reason == "length")
    stop = first.completion[7:10]
    assert len(stop.encode()) >= 3  # bytes are tokens here, so it spans several
    stopping = SamplingSettings(temperature=0.3, max_tokens=30, stop=(stop,))
    again = {s.sample_index: s for s in sampler.sample([prompts()[2]], 4, stopping)}
    cut = again[first.sample_index]
    assert cut.finish_reason == "stop"
    assert cut.completion == first.completion[: first.completion.index(stop)]
    assert cut.token_ids == first.token_ids[: cut.n_tokens]


def test_token_logprobs_add_up(random_model: Path) -> None:
    sampler = Sampler.from_pretrained(str(random_model))
    settings = SamplingSettings(temperature=0.5, max_tokens=9, logprobs=True)
    for sample in sampler.sample(prompts(), 5, settings):
        assert sample.token_logprobs is not None
        assert len(sample.token_logprobs) == sample.n_tokens
        assert sum(sample.token_logprobs) == pytest.approx(sample.logprob)


def test_long_tails_come_back_in_pieces(
    samples: dict[tuple[str, int], Sample], random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parked branches are computed anew, a page at a time where a pass has room for no more."""
    pieces = []
    packs = Prefill._tail_packs

    def watched(prefill: Prefill, sizes: list[int]) -> Iterator[list[tuple[int, int, int]]]:
        for pack in packs(prefill, sizes):
            pieces.extend(pack)
            yield pack

    monkeypatch.setattr("hydragen_tree.branch.prefill.TAIL_LEVELS", 1)
    monkeypatch.setattr(Prefill, "_tail_packs", watched)
    monkeypatch.setattr("hydragen_tree.sample.sampler._DEFAULTS", {"cpu": (256, 16, 16)})
    again = run(random_model, 24, memory_bytes=160 * 1024)
    assert any(start > 0 for _, start, _ in pieces)
    assert all(samples[name].token_ids == sample.token_ids for name, sample in again.items())


def test_bad_requests(random_model: Path) -> None:
    sampler = Sampler.from_pretrained(str(random_model))
    with pytest.raises(InputError, match="n 0"):
        sampler.sample(prompts(), 0)
    with pytest.raises(InputError, match="holds 512"):
        sampler.sample(prompts(), 1, SamplingSettings(max_tokens=500))
    small = Sampler.from_pretrained(str(random_model), memory_bytes=64 * 1024)
    with pytest.raises(CapacityError, match="one branch needs"):
        list(small.sample(prompts(), 1, SETTINGS))
    for wrong in [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"max_tokens": 0}]:
        with pytest.raises(InputError, match="expected"):
            SamplingSettings(**wrong)
