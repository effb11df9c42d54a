"""What a decode step does beside the model. It runs as `test_kernel_attention.py` does."""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_kernels.drawn import Drawn  # noqa: E402
from hydragen_kernels.reference_step import moved_on, step_slots  # noqa: E402
from hydragen_kernels.step import RowState, begin_step, end_step  # noqa: E402

SIZE = 16  # tokens of a page


def rows_of(lengths: list[int], limits: list[int]) -> tuple[torch.Tensor, RowState]:
    """Rows with other tokens, positions, counts and keys each, and the tensor they are views of."""
    rows = len(lengths)
    state = torch.arange(6 * (rows + 3), device=DEVICE).reshape(6, rows + 3) + (1 << 40)
    state[2, :rows], state[3, :rows] = torch.tensor([lengths, limits], device=DEVICE)
    state[4] -= 1 << 40
    return state, RowState(*state[:, :rows])


def test_a_live_row_moves_on_and_others_stand_still() -> None:
    """Live, at the page's end, at its limit, without the page, and past all pages it may have."""
    _, state = rows_of([3, 15, 16, 7, 16, 48], [9, 16, 99, 7, 99, 99])
    pages = torch.full((6, 5), -1, dtype=torch.int32, device=DEVICE)[:, :3]
    pages[:, 0] = torch.tensor([4, 1 << 26, 2, 9, 3, 5], dtype=torch.int32)
    pages[2, 1], pages[5, 2] = 11, -7
    before = [field.clone() for field in state]
    begun = torch.tensor([5], device=DEVICE)

    step = begin_step(state, pages, SIZE, begun)
    assert step.slots.tolist() == [4 * SIZE + 3, (1 << 26) * SIZE + 15, 11 * SIZE, -1, -1, -1]
    assert step.lengths.tolist() == [4, 16, 17, 7, 16, 48]
    assert step.counters.tolist() == before[4].tolist()
    assert begun.tolist() == [6]
    assert all(torch.equal(was, now) for was, now in zip(before, state, strict=True))

    chosen = torch.tensor([7, 6, 5, 4, 3, 2], dtype=torch.int32, device=DEVICE)
    logprobs = -torch.rand(2, 6, device=DEVICE)
    ring_tokens = torch.full((8, 9), -1, dtype=torch.int32, device=DEVICE)
    ring_logprobs = torch.full((2, 8, 9), torch.nan, device=DEVICE)
    end_step(state, step.slots, Drawn(chosen, *logprobs), begun, ring_tokens, ring_logprobs)
    live = torch.tensor([1, 1, 1, 0, 0, 0], device=DEVICE)
    assert state.tokens.tolist() == torch.where(live > 0, chosen, before[0]).tolist()
    for index in (1, 2, 4):
        assert torch.equal(state[index], before[index] + live)
    for index in (3, 5):
        assert torch.equal(state[index], before[index])
    assert torch.equal(ring_tokens[5, :6], chosen)
    assert torch.equal(ring_logprobs[:, 5, :6], logprobs)
    ring_tokens[5, :6], ring_logprobs[:, 5, :6] = -1, torch.nan
    assert (ring_tokens == -1).all()
    assert ring_logprobs.isnan().all()


@pytest.mark.parametrize("rows", [0, 1, 128, 300])
def test_any_number_of_rows(rows: int) -> None:
    whole, state = rows_of(list(range(rows)), [rows] * rows)
    behind = whole[:, rows:].clone()
    pages = torch.arange(20, dtype=torch.int32, device=DEVICE).repeat(rows, 1)
    begun = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    ring_tokens = torch.zeros(1, rows, dtype=torch.int32, device=DEVICE)
    ring_logprobs = torch.zeros(2, 1, rows, device=DEVICE)
    step = begin_step(state, pages, SIZE, begun)
    assert step.slots.tolist() == list(range(rows))
    chosen = torch.arange(rows, dtype=torch.int32, device=DEVICE) + 3
    choice = Drawn(chosen, chosen / 2, chosen / 4)
    end_step(state, step.slots, choice, begun, ring_tokens, ring_logprobs)
    assert begun.item() == 1
    assert state.lengths.tolist() == list(range(1, rows + 1))
    assert torch.equal(ring_tokens[0], chosen)
    assert torch.equal(ring_logprobs[:, 0], torch.stack([chosen / 2, chosen / 4]))
    assert torch.equal(whole[:, rows:], behind)


def test_random_states_equal_the_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths, limits = torch.randint(0, 5 * SIZE, (2, 500), generator=generator)
    _, state = rows_of(lengths.tolist(), limits.tolist())
    pages = torch.randint(-40, 200, (500, 4), generator=generator).int().to(DEVICE)
    begun = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    ring = torch.zeros(1, 500, dtype=torch.int32), torch.zeros(2, 1, 500)
    ring_tokens, ring_logprobs = (x.to(DEVICE) for x in ring)
    slots = step_slots(state.lengths, state.limits, pages, SIZE)
    assert 50 < (slots >= 0).sum() < 450
    chosen = torch.randint(0, 1000, (500,), generator=generator).int().to(DEVICE)
    counts = state.positions, state.lengths, state.drawn
    expected = moved_on(state.tokens, counts, slots, chosen)

    step = begin_step(state, pages, SIZE, begun)
    assert torch.equal(step.slots.long(), slots)
    assert torch.equal(step.lengths.long(), expected[2])
    choice = Drawn(chosen, *torch.zeros(2, 500, device=DEVICE))
    end_step(state, step.slots, choice, begun, ring_tokens, ring_logprobs)
    for found, right in zip((state.tokens, *counts), expected, strict=True):
        assert torch.equal(found, right)


@pytest.mark.parametrize("steps_begun", [0, 3])
def test_a_draw_beyond_the_ring_is_kept_nowhere(steps_begun: int) -> None:
    _, state = rows_of([1], [2])
    around = torch.full((4, 1), -1, dtype=torch.int32, device=DEVICE)
    logprobs = torch.full((4, 4, 1), torch.nan, device=DEVICE)
    begun = torch.tensor([steps_begun], device=DEVICE)
    slots = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    choice = Drawn(slots + 5, *torch.zeros(2, 1, device=DEVICE))
    end_step(state, slots, choice, begun, around[1:3], logprobs[1:3, 1:3])
    assert (around == -1).all()
    assert logprobs.isnan().all()
    assert state.tokens.tolist() == [5]


def test_steps_refuse_what_does_not_fit() -> None:
    _, state = rows_of([1, 2], [3, 3])
    pages = torch.zeros(2, 3, dtype=torch.int32, device=DEVICE)
    begun = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    with pytest.raises(ValueError, match="limits: expected contiguous int64"):
        begin_step(state._replace(limits=state.limits.int()), pages, SIZE, begun)
    with pytest.raises(ValueError, match="begun"):
        begin_step(state, pages, SIZE, begun.int())
    with pytest.raises(ValueError, match="pages: expected int32"):
        begin_step(state, pages[:1], SIZE, begun)
    with pytest.raises(ValueError, match="pages: expected int32"):
        begin_step(state, pages[:, :0], SIZE, begun)
    step = begin_step(state, pages, SIZE, begun)
    choice = Drawn(step.slots, torch.zeros(2, device=DEVICE), torch.zeros(2, device=DEVICE))
    ring = torch.zeros(4, 2, dtype=torch.int32, device=DEVICE), torch.zeros(2, 4, 2, device=DEVICE)
    with pytest.raises(ValueError, match="slots"):
        end_step(state, step.slots.long(), choice, begun, *ring)
    wide = Drawn(step.slots, choice.logprobs.double(), choice.sampled_logprobs)
    with pytest.raises(ValueError, match="logprobs: expected contiguous float32"):
        end_step(state, step.slots, wide, begun, *ring)
    with pytest.raises(ValueError, match="ring_tokens"):
        end_step(state, step.slots, choice, begun, ring[0][:, :1], ring[1])
    with pytest.raises(ValueError, match="ring_logprobs"):
        end_step(state, step.slots, choice, begun, ring[0], ring[1][:, :3])
    with pytest.raises(ValueError, match="ring_logprobs"):
        end_step(state, step.slots, choice, begun, ring[0], ring[1][:, :, :1])
