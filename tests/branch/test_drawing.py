"""Choice: the generator's known answers, transformers' filters, and the right frequencies."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from hydragen_kernels import native_choose, reference_choice
from hydragen_kernels.random import philox4x32, uniforms
from hydragen_tree.branch import drawing
from hydragen_tree.branch.drawing import draw, filtered, stream_key, stream_keys
from hydragen_tree.errors import InputError, ModelError
from hydragen_tree.settings import SamplingSettings


@pytest.mark.parametrize(
    ("key", "counter", "answer"),
    [  # Random123's kat_vectors, philox4x32 10
        (0, [0] * 4, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (2**64 - 1, [2**32 - 1] * 4, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            0x299F31D0_A4093822,
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_known_answers(key: int, counter: list[int], answer: list[int]) -> None:
    words = philox4x32(np.array([key], np.uint64), np.array([counter], np.uint32))
    assert words[0].tolist() == answer


@pytest.fixture(params=["c", "torch"])
def _form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws by either form."""
    if request.param == "torch":
        monkeypatch.setattr(native_choose, "why_unavailable", lambda: "no C compiler")


in_both_forms = pytest.mark.usefixtures("_form")
SETTINGS = [
    SamplingSettings(temperature=0.6),
    SamplingSettings(temperature=1.3, top_k=7),
    SamplingSettings(temperature=0.8, top_p=0.7),
    SamplingSettings(temperature=1.0, min_p=0.1),
    SamplingSettings(temperature=1.5, top_k=20, top_p=0.9, min_p=0.05),
    SamplingSettings(temperature=0.8, top_k=1),
    SamplingSettings(temperature=0.8, top_p=1e-9),
]


def by_transformers(logits: torch.Tensor, settings: SamplingSettings) -> torch.Tensor:
    processors = LogitsProcessorList([TemperatureLogitsWarper(settings.temperature)])
    if settings.top_k:
        processors.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1.0:
        processors.append(TopPLogitsWarper(settings.top_p))
    if settings.min_p:
        processors.append(MinPLogitsWarper(settings.min_p))
    return processors(None, logits.clone()).softmax(-1)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_filters_are_those_of_transformers(settings: SamplingSettings) -> None:
    logits = torch.randn(40, 60, generator=torch.Generator().manual_seed(3)) * 3
    torch.testing.assert_close(filtered(logits, settings), by_transformers(logits, settings))


@in_both_forms
@pytest.mark.parametrize("settings", SETTINGS[:5], ids=str)
def test_frequencies(settings: SamplingSettings) -> None:
    """Chi-square over 40,000 draws of one distribution; a fair generator fails once in 10^6."""
    n = 40_000
    logits = torch.randn(1, 60, generator=torch.Generator().manual_seed(5)) * 2
    expected = by_transformers(logits, settings)[0].double().numpy()
    keys = np.array([stream_key(0, "task", 0, i) for i in range(n)], np.uint64)
    drawn = draw(logits, np.zeros(n, np.int32), keys, np.full(n, 3), settings)
    counts = np.bincount(drawn.tokens, minlength=60)
    assert not counts[expected == 0].any()
    rare = expected * n < 5
    observed = np.append(counts[~rare], counts[rare].sum())
    ideal = np.append(expected[~rare], expected[rare].sum()) * n
    keep = ideal > 0
    ideal *= observed.sum() / ideal.sum()
    assert stats.chisquare(observed[keep], ideal[keep]).pvalue > 1e-6


def test_random_numbers_are_uniform_and_depend_on_each_part() -> None:
    parts = [(s, t, v, i) for s in (0, 1) for t in ("a", "b") for v in (0, 1) for i in range(2000)]
    keys = np.array([stream_key(*part) for part in parts], np.uint64)
    assert np.unique(keys).size == keys.size
    for position in (0, 1, 1000):
        values = uniforms(keys, np.full(keys.size, position))
        assert stats.kstest(values, "uniform").pvalue > 1e-6


@in_both_forms
def test_samples_of_a_row_do_not_depend_on_each_other() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    keys = np.arange(30, dtype=np.uint64) * 7919
    rows = np.repeat(np.arange(3), 10).astype(np.int32)
    settings = SamplingSettings(temperature=1.0)
    together = draw(logits, rows, keys, np.arange(30), settings)
    for i in range(30):
        alone = draw(
            logits[rows[i]][None], np.zeros(1, np.int32), keys[i : i + 1], np.array([i]), settings
        )
        assert alone.tokens[0] == together.tokens[i]
        assert alone.logprobs[0] == pytest.approx(together.logprobs[i])


@in_both_forms
def test_logprobs_and_greedy() -> None:
    logits = torch.randn(2, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float32)
    rows, keys = np.array([0, 1], np.int32), np.array([1, 2], np.uint64)
    greedy = draw(logits, rows, keys, np.zeros(2, np.int64), SamplingSettings(temperature=0.0))
    assert greedy.tokens.tolist() == logits.argmax(-1).tolist()
    assert greedy.sampled_logprobs.tolist() == [0.0, 0.0]
    expected = logits.log_softmax(-1).amax(-1)
    np.testing.assert_allclose(greedy.logprobs, expected.numpy(), rtol=1e-5)


@in_both_forms
@pytest.mark.parametrize("settings", [*SETTINGS, SamplingSettings(temperature=0.0)], ids=str)
def test_samples_that_crowd_a_row_are_drawn_as_one_by_one(
    settings: SamplingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any size of pieces: the row is the same, and so are the comparisons."""
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(4)) * 2
    rows = np.repeat(np.arange(5, dtype=np.int32), [1, 0, 170, 3, 26])
    keys = np.arange(200, dtype=np.uint64) * 104729
    alone = [
        draw(logits[row][None], np.zeros(1, np.int32), keys[i : i + 1], np.array([7]), settings)
        for i, row in enumerate(rows)
    ]
    for chunk in (1, 90, 1 << 22):
        monkeypatch.setattr("hydragen_tree.branch.drawing._CHUNK", chunk)
        drawn = draw(logits, rows, keys, np.full(200, 7), settings)
        assert drawn.tokens.tolist() == [int(one.tokens[0]) for one in alone]


@in_both_forms
@pytest.mark.parametrize("vocabulary", [512, 513, 3000])
@pytest.mark.parametrize("top_p", [1.0, 0.95, 0.3])
def test_large_vocabularies_are_drawn_from_as_by_the_definition(
    top_p: float, vocabulary: int
) -> None:
    """Whether few tokens, many or nearly all are left by top-p, wherever in the row they lie."""
    generator = torch.Generator().manual_seed(5)
    sharpness = torch.tensor([8.0, 3.0, 1.0, 0.1, 0.0])[:, None]
    logits = torch.randn(5, vocabulary, generator=generator) * sharpness
    logits[4, ::2] = -torch.inf  # equal ones are kept together
    rows = np.repeat(np.arange(5, dtype=np.int32), 60)
    keys, positions = np.arange(300, dtype=np.uint64) * 7919, np.full(300, 3)
    drawn = draw(
        *(logits, rows, keys, positions), SamplingSettings(top_p=top_p, temperature=0.8),
    )  # fmt: skip
    expected = reference_choice.choose(
        *(logits, *map(torch.from_numpy, (rows, keys.view(np.int64), positions))),
        temperature=0.8, top_p=top_p,
    )  # fmt: skip
    assert drawn.tokens.tolist() == expected.tokens.tolist()
    sampled = torch.from_numpy(drawn.sampled_logprobs)
    assert (sampled - expected.sampled_logprobs.double()).abs().max() < 1e-3


def test_a_share_of_nearly_one_is_the_last_token() -> None:
    """Sums of blocks and of single numbers round differently; no token without weight is drawn."""
    generator = np.random.default_rng(0)
    probabilities = generator.random((3, 2000)).astype(np.float32)
    probabilities[:, 1500:] = 0.0
    rows, at = np.arange(3), np.full(3, np.nextafter(1.0, 0.0))
    assert drawing._search(probabilities, rows, at).tolist() == [1499] * 3
    probabilities[:, :1100] = 0.0
    assert drawing._search(probabilities, rows, np.zeros(3)).tolist() == [1100] * 3


def test_memory_is_that_of_the_rows() -> None:
    """In a process of its own, as its peak is what counts."""
    code = """
import resource
import numpy as np
import torch
from hydragen_tree.branch.drawing import draw
from hydragen_tree.settings import SamplingSettings
logits = torch.randn(2, 128_256)
def draw_of(n):
    rows = np.repeat(np.arange(2, dtype=np.int32), n // 2)
    draw(logits, rows, np.arange(n, dtype=np.uint64), np.zeros(n, np.int64), SamplingSettings())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
few = draw_of(4)
print((draw_of(4000) - few) >> 10)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64  # MiB; with a copy of the row for each sample it is 3,900


NEEDS_GPU = (
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
)
BROKEN = {
    "NaN": [0.0, torch.nan, 1.0],
    "+inf": [0.0, torch.inf, 1.0],
    "all -inf": [-torch.inf] * 3,
    "all NaN": [torch.nan] * 3,
}


@in_both_forms
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
@pytest.mark.parametrize("settings", [*SETTINGS, SamplingSettings(temperature=0.0)], ids=str)
@pytest.mark.parametrize("kind", BROKEN)
def test_logits_that_are_not_numbers_are_refused(
    kind: str, settings: SamplingSettings, device: str
) -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], BROKEN[kind], [-torch.inf, 0.0, 1.0]], device=device)
    keys, at = np.arange(3, dtype=np.uint64), np.zeros(3, np.int64)
    with pytest.raises(ModelError, match=r"NaN or \+inf"):
        draw(logits, np.arange(3, dtype=np.int32), keys, at, settings)
    fine = draw(logits, np.array([0, 2, 2], np.int32), keys, at, settings)
    assert np.isfinite(fine.logprobs).all()


@in_both_forms
def test_a_temperature_beyond_float32_is_refused() -> None:
    for temperature in (1e-30, 1e-9, 5e-324):
        with pytest.raises(InputError, match=r"temperature.*0 \(greedy\) or"):
            SamplingSettings(temperature=temperature)
    logits = torch.tensor([[1e4, -1e4, 9e3]])
    coldest = SamplingSettings(temperature=1e-6)
    drawn = draw(logits, np.zeros(1, np.int32), np.ones(1, np.uint64), np.zeros(1), coldest)
    assert drawn.tokens.tolist() == [0]


def test_keys_of_many_samples_are_those_of_each() -> None:
    indices = np.array([0, 7, 10, 123_456_789])
    expected = [stream_key(3, "naïve", 2, index) for index in indices.tolist()]
    assert stream_keys(3, "naïve", 2, indices).tolist() == expected


@in_both_forms
@pytest.mark.parametrize("temperature", [1e-6, 0.3, 1.0, 1e30])
@pytest.mark.parametrize(
    "settings",
    [{}, {"top_p": 0.9}, {"top_k": 2}, {"min_p": 0.1}, {"top_k": 3, "top_p": 0.5}],
    ids=str,
)
def test_logits_of_any_size_give_tokens_of_the_vocabulary(
    settings: dict[str, float], temperature: float
) -> None:
    """Logits that overflow once they are divided by the temperature are as good as others."""
    logits = torch.tensor(
        [[-3e38, 3e38, 1.0, -torch.inf], [5.0, 4.0, 1e-45, 3.0], [0.0, 3e38, 3e38, -1e-40]]
    )
    rows = np.repeat(np.arange(3, dtype=np.int32), 200)
    keys = np.arange(rows.size, dtype=np.uint64) * 7919
    chosen = SamplingSettings(temperature=temperature, **settings)  # type: ignore[arg-type]
    drawn = draw(logits, rows, keys, np.zeros(rows.size, np.int64), chosen)
    assert ((drawn.tokens >= 0) & (drawn.tokens < 4)).all()
    assert np.isfinite(drawn.sampled_logprobs).all()
    if temperature <= 1.0:
        assert set(drawn.tokens[rows == 0]) == {1}
        assert set(drawn.tokens[rows == 2]) <= {1, 2}
