"""Prompts that come late join the run: samples as if all had been there, and no work twice."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from hydragen_kernels.random import uniforms
from hydragen_tree.branch.drawing import filtered, stream_key
from hydragen_tree.errors import CapacityError, InputError
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.loop import Loop
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings

N, PAGE = 4, 16
SETTINGS = SamplingSettings(temperature=0.5, max_tokens=18, stop=("e", "7"))
Tokens = tuple[int, ...]
Texts = dict[tuple[str, int], Tokens]


@pytest.fixture(scope="module")
def sampler(random_model: Path) -> Sampler:
    return Sampler.from_pretrained(str(random_model), max_rows=12)


def prompt(name: str, *parts: np.ndarray) -> Prompt:
    return Prompt(name, 0, np.concatenate(parts).astype(np.int32), ())


def family(seed: int) -> list[Prompt]:
    """Prompts that share beginnings of many lengths, some whole, some equal."""
    rng = np.random.default_rng(seed)
    made = [rng.integers(0, 250, int(rng.integers(1, 70)))]
    while len(made) < 7:
        base = made[int(rng.integers(0, len(made)))]
        shared = base[: int(rng.integers(0, base.size + 1))]
        own = rng.integers(0, 250, int(rng.choice([0, 1, 5, 40])))
        if shared.size + own.size:
            made.append(np.append(shared, own))
    return [prompt(f"p{i}", tokens) for i, tokens in enumerate(made)]


class Arrivals:
    """Gives prompts at the rounds that are named, or when the run waits for them."""

    def __init__(self, pieces: list[tuple[int, list[Prompt]]]) -> None:
        self.pieces, self.round, self.waits = pieces, 0, 0

    def take(self, wait: bool) -> list[Prompt] | None:
        self.round += 1
        if not self.pieces:
            return None
        if wait or self.round >= self.pieces[0][0]:
            self.waits += wait
            return self.pieces.pop(0)[1]
        return []


def watch(patch: pytest.MonkeyPatch) -> list[Loop]:
    """Counts pages after every round; gives the loops that run."""
    seen, step = [], Loop.step

    def watched(loop: Loop) -> Iterator[Sample]:
        if loop not in seen:
            seen.append(loop)
        yield from step(loop)
        count_pages(loop)

    patch.setattr(Loop, "step", watched)
    return seen


def count_pages(loop: Loop) -> None:
    """A page in use is a row's, or a segment's, or of two segments one of which goes on there."""
    cache, table, batch = loop.cache, loop.residency.table, loop.stepper._batch
    users, owner = np.zeros(cache.n_pages, int), np.full(cache.n_pages * PAGE, -1)
    np.add.at(users, batch.pages[batch.pages >= 0], 1)
    assert not users[np.unique(batch.pages[batch.pages >= 0])].min(initial=1) < 1
    of_rows = users > 0
    for segment in np.flatnonzero(table.slot[: table.size] >= 0).tolist():
        first = int(table.slot[segment])
        slots = slice(first, first + int(table.n_tokens[segment]))
        assert (owner[slots] < 0).all(), "two segments lie in the same place"
        owner[slots] = segment
        pages = slice(slots.start // PAGE, -(-slots.stop // PAGE))
        assert not of_rows[pages].any(), "a segment lies where a tail does"
        users[pages] += 1
    assert users.tolist() == cache.arenas[0].users.tolist(), "pages lost, or shared by mistake"
    in_segments = np.unique(np.flatnonzero(owner >= 0) // PAGE)
    assert loop.cache.segment_pages == in_segments.size


def texts(samples: Iterator[Sample]) -> Texts:
    return {(sample.task_id, sample.sample_index): sample.token_ids for sample in samples}


def check_tie(
    model: Path, prompt: np.ndarray, name: tuple[str, int], one: Tokens, other: Tokens
) -> None:
    """The first token in which samples differ has a random number where two tokens meet."""
    at = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    whole = torch.from_numpy(np.append(prompt, one[:at]).astype(np.int64))[None]
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(model)(whole).logits[0, -1:]
    bounds = filtered(logits, SETTINGS)[0].double().cumsum(-1).numpy()
    key = np.array([stream_key(0, name[0], 0, name[1])], np.uint64)
    random = uniforms(key, np.array([at]))[0]
    assert abs(bounds[min(one[at], other[at])] / bounds[-1] - random) < 1e-5


def is_in(part: np.ndarray, whole: np.ndarray) -> int:
    """How many tokens two prompts share."""
    n = min(part.size, whole.size)
    differs = part[:n] != whole[:n]
    return int(differs.argmax()) if differs.any() else n


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32), memory=st.sampled_from([None, 14]), gap=st.integers(1, 20))
def test_the_same_samples_as_if_all_had_been_there(
    sampler: Sampler, random_model: Path, seed: int, memory: int | None, gap: int
) -> None:
    prompts = family(seed)
    whole = texts(sampler.sample(prompts, N, SETTINGS))
    drawing = sampler
    if memory is not None:
        pages = -(-max(p.token_ids.size for p in prompts) // PAGE) + memory
        size = pages * PAGE * sampler.source.shape.token_bytes
        drawing = Sampler.from_pretrained(str(random_model), max_rows=12, memory_bytes=size)
    pieces = [(1 + gap * i, [one]) for i, one in enumerate(prompts[1:])]
    with pytest.MonkeyPatch.context() as patch:
        watch(patch)
        late = Arrivals(pieces).take
        try:
            found = texts(drawing.sample(prompts[:1], N, SETTINGS, late=late))
        except CapacityError:
            assert memory is not None
            return
    assert found.keys() == whole.keys()
    by_name = {one.task_id: one.token_ids for one in prompts}
    for name in (name for name in whole if found[name] != whole[name]):
        check_tie(random_model, by_name[name[0]], name, found[name], whole[name])
    stats = drawing.stats
    assert (stats.samples_done, stats.prompts_joined) == (len(prompts) * N, len(prompts) - 1)
    if memory is None:
        assert stats.rows_parked == 0
        # less than a page is not shared; a last token is computed again for its logits
        own, again = prompts[0].token_ids.size, 0
        for i, one in enumerate(prompts[1:], 1):
            common = [is_in(one.token_ids, before.token_ids) for before in prompts[:i]]
            own += one.token_ids.size - max(common)
            again += PAGE - 1 + (max(common) == one.token_ids.size)
        assert own <= stats.prefilled_tokens <= own + again


def test_only_its_own_part_is_computed_and_stored(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a segment that is parted, and parted again; equal to one, and the end of another."""
    rng = np.random.default_rng(0)
    root, a, b, c = (rng.integers(0, 250, size) for size in (75, 30, 20, 10))
    first = [prompt("a", root, a)]
    pieces = [
        (2, [prompt("b", root, b)]),  # parts the first after 75
        (4, [prompt("c", root[:40], c), prompt("d", root[:40], a)]),
        (6, [prompt("e", root, a)]),  # the first again
        (8, [prompt("f", root[:75])]),  # ends where the first was parted
    ]
    loops, late = watch(monkeypatch), Arrivals(pieces)
    settings = replace(SETTINGS, max_tokens=60, stop=())
    found = texts(sampler.sample(first, 2, settings, late=late.take))
    assert late.waits == 0, "the batch was drained"
    stats = sampler.stats
    assert stats.prompt_tokens == 75 + 30 + 20 + 10 + 30
    assert stats.prefilled_tokens == stats.prompt_tokens + 1 + 1  # last tokens, for their logits
    assert stats.prompts_joined == 5
    everything = [*first, *(one for _, some in pieces for one in some)] or first
    table = loops[0].residency.table
    assert int(table.n_tokens[: table.size][~table.is_tail[: table.size]].sum()) == 165
    known = [prompt(n, *p) for n, p in _parts(root, a, b, c)]
    assert found == texts(sampler.sample(known, 2, settings))
    assert everything == first  # all pieces were taken


def _parts(
    root: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray
) -> list[tuple[str, tuple[np.ndarray, ...]]]:
    return [
        ("a", (root, a)),
        ("b", (root, b)),
        ("c", (root[:40], c)),
        ("d", (root[:40], a)),
        ("e", (root, a)),
        ("f", (root,)),
    ]


def test_what_nobody_needs_is_still_there_for_the_next(sampler: Sampler) -> None:
    """The run has nothing left to do each time, and waits."""
    rng = np.random.default_rng(1)
    root = rng.integers(0, 250, 64)
    prompts = [prompt(f"p{i}", root, np.full(8, i)) for i in range(4)]
    late = Arrivals([(10**9, [one]) for one in prompts[1:]])
    texts(sampler.sample(prompts[:1], 3, SETTINGS, late=late.take))
    assert late.waits == 3
    assert sampler.stats.prefilled_tokens == 64 + 4 * 8


def test_a_prompt_that_does_not_fit_ends_it_behind_those_before(sampler: Sampler) -> None:
    rng = np.random.default_rng(2)
    good = [prompt(f"p{i}", rng.integers(0, 250, 20)) for i in range(3)]
    context = sampler.source.context_tokens
    pieces = [(2, [good[1]]), (3, [prompt("long", np.zeros(context))]), (4, [good[2]])]
    found: list[Sample] = []
    with pytest.raises(InputError, match="long"):
        found.extend(sampler.sample(good[:1], N, SETTINGS, late=Arrivals(pieces).take))
    assert texts(iter(found)) == texts(sampler.sample(good[:2], N, SETTINGS))
    with pytest.raises(InputError, match="comes twice"):
        list(sampler.sample(good[:1], N, SETTINGS, late=Arrivals([(2, good[:1])]).take))
    stops = [Prompt("s", 0, good[1].token_ids, ("zz",))]
    with pytest.raises(InputError, match="stop strings"):
        list(sampler.sample(good[:1], N, SETTINGS, late=Arrivals([(2, stops)]).take))
