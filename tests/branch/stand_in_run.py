"""A run of the sampler's loop on the stand-in decoder."""

from typing import Any

import numpy as np
import pytest
import torch

from hydragen_tree.branch import device_states, device_stepper, draft_widths, forecast, groups
from hydragen_tree.branch.admission import Admission
from hydragen_tree.branch.budget import padded_rows
from hydragen_tree.branch.device_freezing import DeviceFreezing
from hydragen_tree.branch.device_stepper import DeviceStepper
from hydragen_tree.branch.draft_widths import DraftWidths
from hydragen_tree.branch.live_trie import Sharing
from hydragen_tree.branch.residency import Residency
from hydragen_tree.branch.stepper import Waiting
from hydragen_tree.errors import CapacityError
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.states import LayerKinds, StateKind, StatePlaces, States
from hydragen_tree.sample.loop import Loop
from hydragen_tree.sample.records import RunStats
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.shape import KVShape
from hydragen_tree.trie.costs import CostModel
from hydragen_tree.trie.trie import Trie
from tests.branch.stand_in_decoder import Ahead, pages_balance
from tests.branch.stand_in_memory import PAGE, STATE_WORDS, Memory, copy_states
from tests.branch.stand_in_texts import Texts

SHAPE = KVShape(layers=1, q_heads=1, kv_heads=1, head_dim=2, itemsize=4)
EAGER = CostModel("eager", bandwidth=1.0, item_s=0.0)  # sharing a page pays already
PROMPTS = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 6, 7], [1, 2, 3], [9] * 9]


def run(
    *,
    prompts: int,
    n: int,
    n_pages: int,
    max_rows: int,
    max_tokens: int,
    vocabulary: int,
    together: int,
    p_end: float,
    greedy: bool,
    chunk: int,
    pass_tokens: int,
    least_rows: int,
    seed: int,
    late: int = 0,
    every: int = 1,
    entering: int = 0,
    widths: tuple[int, ...] = (1,),
    key_group: int = 0,
) -> int | None:
    """Draws all samples; None where the run would be refused, else drafts that were drawn.

    So many of the prompts come late, one after so many rounds each, or when nothing is left to do.
    Rows have running states if so many of them may be on their way into the batch. Shared tails are
    frozen if attention takes in a number of keys together.
    """
    arrays = [np.array(p, np.int32) for p in PROMPTS[:prompts]]
    late = min(late, prompts - 1)
    trie = Trie.build(arrays[: prompts - late], max(key_group, 1))
    coming = arrays[prompts - late :]
    cpu = torch.device("cpu")
    kinds = {0: LayerKinds(None, StateKind((STATE_WORDS,), torch.int32))} if entering else {}
    states = States(kinds, StatePlaces(90, entering, padded_rows(max_rows)), cpu)
    cache = KVCache(SHAPE, n_pages, PAGE, torch.float32, cpu, states=states)
    residency = Residency(trie, cache, Sharing(2, 9, max(key_group, 1), not entering))
    try:
        residency.check_capacity(max_tokens)
    except CapacityError:
        return None
    leaves = prompts

    def leaf_of(sample: int) -> int:
        return sample // n

    of_text = leaf_of if greedy else int
    texts = Texts(leaves * n, of_text, max_tokens, vocabulary, together, p_end, seed)
    memory = Memory(residency.trie, residency.table, states, pass_tokens)
    has_drafts = widths != (1,) and not entering  # running states cannot go back
    parts = texts, memory, cache, residency, max_rows, max_tokens
    decoder: Any = Ahead(*parts, has_drafts=has_drafts)
    texts_of = np.arange(prompts - late), arrays.__getitem__
    chooser = DraftWidths(*texts_of, max_rows, decoder.drafts)
    decoder.leaf_of = leaf_of
    options = SamplingSettings(temperature=0.0 if greedy else 1.0, max_tokens=max_tokens)
    stand_ins: Any = texts, memory
    ends, prefill = stand_ins
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_states, "copy_states", copy_states)
        patch.setattr(device_stepper, "CHUNK_STEPS", chunk)
        patch.setattr(forecast, "LEAST_ROWS", least_rows)
        patch.setattr(groups, "_LEAST_ROOM", least_rows)
        patch.setattr(draft_widths, "WIDTHS", widths)
        patch.setattr(draft_widths, "step_cost", lambda queries: 1.0)
        given = decoder, cache, residency.table, options, ends
        freezing = None
        if key_group:
            patch.setattr(cache.arenas[0], "copy_to_run", memory.copy_to_run)
            sizes = EAGER, SHAPE, max_tokens, key_group
            freezing = DeviceFreezing(decoder.batch, residency, cache, *sizes)
        stepper = DeviceStepper(*given, chooser if has_drafts else None, freezing)
        decoder.segment_of = lambda group: int(stepper._groups.segments_of(np.array([group]))[0])
        waiting = [
            Waiting(leaf, np.empty(0, np.int32), np.arange(leaf * n, (leaf + 1) * n))
            for leaf in reversed(range(leaves - late))
        ]
        parts = stepper, residency, prefill, cache, max_rows, greedy
        admission = Admission(waiting, *parts)
        loop = Loop(admission, stepper, residency, prefill, cache, ends, RunStats())
        rounds, admission.keeps_segments = 0, late > 0
        while stepper.n_samples or admission.has_waiting or coming:
            has_work = stepper.n_samples or admission.has_waiting
            if coming and (rounds % every == 0 or not has_work):
                (leaf,) = residency.join([coming.pop(0)])
                assert leaf == leaves - len(coming) - 1
                chooser.join(np.array([leaf]), np.array([leaf]))
                try:
                    residency.check_capacity(max_tokens)
                except CapacityError:
                    return None
                own = np.arange(leaf * n, (leaf + 1) * n)
                admission.add([Waiting(leaf, np.empty(0, np.int32), own)])
            list(loop.step())
            pages_balance(stepper, cache, residency)
            rounds += 1
            assert rounds < 500 + 20 * leaves * n * max_tokens, "the run does not end"
        list(loop.samples())  # those that have ended in the last round
    assert sorted(texts.ended) == list(range(leaves * n))
    admission.keeps_segments = False
    admission._evict_unused([])
    assert cache.free_pages == n_pages
    return int(decoder.accepted)
