"""What a decode step does beside the model. It runs as `test_attention.py` does."""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_kernels import reference_step  # noqa: E402
from hydragen_kernels.batch_state import (  # noqa: E402
    TOO_FEW_PAGES,
    TOO_MANY_ROWS,
    BatchState,
    Control,
    Ring,
    RowState,
)
from hydragen_kernels.drawn import Drawn  # noqa: E402
from hydragen_kernels.step import begin_step, end_step  # noqa: E402

SIZE = 16  # tokens of a page
VOCABULARY = 11


def tensor(values: object, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device=DEVICE)


def batch_of(
    lengths: list[int], stops: list[int], *, queue: list[int], **control: int
) -> BatchState:
    """A sample a row, row fields told apart by their values; views of tensors with rows behind."""
    n = len(lengths)
    whole = torch.arange(len(RowState._fields) * (n + 3), device=DEVICE).reshape(-1, n + 3)
    whole = whole + (1 << 40)
    named = RowState(*whole[:, :n])
    named.lengths.copy_(tensor(lengths))
    named.stops.copy_(tensor(stops))
    named.drawn.copy_(tensor(lengths) + 1)
    numbers = Control(begun=0, rows=n, stuck=0, taken=0, given=len(queue), computed=0)
    return BatchState(
        rows=whole[:, :n],
        pages=torch.full((n, 5), -1, dtype=torch.int32, device=DEVICE)[:, :4],
        sample_rows=torch.arange(n, dtype=torch.int32, device=DEVICE),
        keys=torch.arange(n, device=DEVICE),
        control=tensor(numbers._replace(**control)),
        queue=tensor(queue, torch.int32),
    )


def copied(batch: BatchState) -> BatchState:
    return BatchState(*(part.clone() for part in batch))


def changed(before: BatchState, after: BatchState) -> set[str]:
    """The parts that are not what they were, control by its fields."""
    parts = {
        name
        for name, was, now in zip(BatchState._fields, before, after, strict=True)
        if name != "control" and not torch.equal(was, now)
    }
    numbers = zip(Control._fields, before.control.tolist(), after.control.tolist(), strict=True)
    return parts | {name for name, was, now in numbers if was != now}


def ring_of(steps: int, samples: int) -> Ring:
    """A ring whose contents nothing that is drawn can be."""
    return Ring(
        torch.full((steps, samples), -77, dtype=torch.int32, device=DEVICE),
        torch.full((2, steps, samples), torch.nan, device=DEVICE),
    )


def equal(found: tuple[torch.Tensor, ...], right: tuple[torch.Tensor, ...]) -> None:
    for one, other in zip(found, right, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_pages_come_from_the_queue_in_the_order_of_rows() -> None:
    """In a page, at a page's end, dead, at one's beginning, past all its pages, and beyond them."""
    batch = batch_of(
        [3, 15, 16, 32, 48, 16],
        [0, 2, -1, 0, 7, 0],
        queue=[50, 51, 52, 53, 54],
        rows=5,
        taken=4,
        given=6,  # around the queue's end: 54, then 50
    )
    batch.pages[:, 0] = tensor([4, 1 << 26, 2, 9, 3, 5])
    before = copied(batch)
    step = begin_step(batch, SIZE)
    assert step.slots.tolist() == [
        4 * SIZE + 3,
        (1 << 26) * SIZE + 15,
        -1,
        54 * SIZE,
        50 * SIZE,
        -1,
    ]
    assert step.lengths.tolist() == [4, 16, 0, 33, 49, 0]
    assert step.counters.tolist() == [4, 16, 0, 33, 49, 0]
    assert batch.pages[3].tolist() == [9, -1, 54, -1]
    assert batch.pages[4].tolist() == [3, -1, -1, 50]
    assert changed(before, batch) == {"pages", "begun", "taken", "computed"}
    assert Control(*batch.control.tolist()) == Control(1, 5, 0, taken=6, given=6, computed=4)


@pytest.mark.parametrize("field", [{"taken": 2}, {"rows": 4}, {"stuck": TOO_FEW_PAGES}])
def test_a_stuck_step_moves_nobody(field: dict[str, int]) -> None:
    """A page too few, a row too many, or stuck since an earlier step."""
    batch = batch_of([16, 16, 3], [0, 0, 0], queue=[50, 51, 52], **field)
    batch.pages[:, 0] = tensor([4, 5, 6])
    before = copied(batch)
    step = begin_step(batch, SIZE)
    assert step.slots.tolist() == [-1, -1, -1]
    assert step.lengths.tolist() == [16, 16, 3]
    stuck = TOO_MANY_ROWS if "rows" in field else TOO_FEW_PAGES
    expected = {"begun"} if "stuck" in field else {"begun", "stuck"}
    assert changed(before, batch) == expected
    assert Control(*batch.control.tolist()).stuck == stuck

    before = copied(batch)
    ring = ring_of(1, 3)
    chosen = tensor([1, 2, 3], torch.int32)
    table = torch.zeros(1, VOCABULARY, dtype=torch.int16, device=DEVICE)
    end_step(batch, step.slots, Drawn(chosen, chosen / 2, chosen / 4), table, 99, ring)
    assert changed(before, batch) == set()
    assert ring.tokens.tolist() == [[-1, -1, -1]]
    assert (ring.logprobs == 0).all()


def test_as_many_pages_as_there_are_suffice() -> None:
    batch = batch_of([0, 16, 32], [0, 0, 0], queue=[50, 51, 52])
    assert (begin_step(batch, SIZE).slots >= 0).all()
    assert Control(*batch.control.tolist()).taken == 3


def random_batch(rows: int, n_rows: int, pages: int, seed: int) -> BatchState:
    """Dead rows among live ones; samples without a row, or with one of those beyond the cut."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=generator)

    samples = n_rows + 40
    state = numbers(0, 1 << 40, len(RowState._fields), rows + 5)
    named = RowState(*state)
    named.lengths.copy_(numbers(0, 5 * SIZE, rows + 5))
    named.drawn.copy_(named.lengths + numbers(0, 2, rows + 5))
    named.stops.copy_(numbers(-1, 4, rows + 5))
    where = torch.full((samples,), -1)
    where[torch.randperm(samples, generator=generator)[:n_rows]] = torch.arange(n_rows)
    on_dead = (where >= 0) & (named.stops[where.clamp(0, rows + 4)] < 0)
    where = torch.where(on_dead & (where < rows), -1, where)
    taken = int(numbers(0, 1000, 1))
    control = Control(begun=2, rows=n_rows, stuck=0, taken=taken, given=taken + pages, computed=7)
    return BatchState(
        rows=state[:, :rows].to(DEVICE),
        pages=numbers(-60, 60, rows, 6).clamp(min=-1).int().to(DEVICE)[:, :5],
        sample_rows=where.int().to(DEVICE),
        keys=numbers(0, 1 << 60, samples).to(DEVICE),
        control=tensor(control),
        queue=torch.randperm(rows + 50, generator=generator).int().to(DEVICE) + 1000,
    )


@pytest.mark.parametrize(
    ("rows", "n_rows", "pages"),
    [
        (8, 0, 0),
        (8, 1, 1),
        (8, 8, 8),
        (8, 9, 58),
        (130, 120, 1),
        (130, 120, 180),
        (1024, 1024, 1000),
        (1030, 1026, 1000),
        (2500, 2400, 2000),
        (2500, 2501, 2000),
        (2500, 2400, 100),
    ],
)
def test_random_states_equal_the_reference(rows: int, n_rows: int, pages: int) -> None:
    """More rows than one block of them, each way of being stuck, and samples beyond the rows."""
    batch = random_batch(rows, n_rows, pages, rows + n_rows + pages)
    right = copied(batch)
    step, expected = begin_step(batch, SIZE), reference_step.begin_step(right, SIZE)
    equal(step, expected)
    equal(batch, right)

    samples = len(batch.sample_rows)
    generator = torch.Generator().manual_seed(1)
    chosen = torch.randint(0, VOCABULARY, (samples,), generator=generator).int()
    drawn = Drawn(chosen.to(DEVICE), *torch.rand(2, samples, generator=generator).to(DEVICE))
    table = torch.randint(-2, 4, (4, VOCABULARY), generator=generator).to(DEVICE, torch.int16)
    ring, other = ring_of(4, samples), ring_of(4, samples)
    end_step(batch, step.slots, drawn, table, 60, ring)
    reference_step.end_step(right, step.slots, drawn, table, 60, other)
    equal(batch, right)
    equal(ring, other)


def test_a_sample_ends_by_its_token_or_by_its_length() -> None:
    """State 1 ends at token 3; all go to state 1 by token 4; the third token is the last."""
    batch = batch_of([2, 5, 1, 1], [0, 1, 1, -1], queue=[0])
    batch.named.drawn.copy_(tensor([0, 1, 2, 1]))
    batch.sample_rows.copy_(tensor([2, 0, -1, 1]))
    table = torch.zeros(2, VOCABULARY, dtype=torch.int32, device=DEVICE)
    table[:, 4], table[1, 3] = 1, -5
    before = copied(batch)
    slots = tensor([7, 8, 9, -1], torch.int32)
    chosen = tensor([2, 4, 9, 3], torch.int32)
    batch.control[Control._fields.index("begun")] = 2
    ring = ring_of(3, 4)
    end_step(batch, slots, Drawn(chosen, chosen / 2, chosen / 4), table, 3, ring)
    assert batch.named.stops.tolist() == [1, -1, -1, -1]
    assert batch.sample_rows.tolist() == [-1, 0, -1, -1]
    assert batch.named.tokens.tolist()[:3] == [4, 3, 2]
    moved = tensor([1, 1, 1, 0])
    for name in ("positions", "lengths", "drawn"):
        was, now = getattr(before.named, name), getattr(batch.named, name)
        assert torch.equal(now, was + moved), name
    for name in ("groups", "fresh"):
        assert torch.equal(getattr(batch.named, name), getattr(before.named, name)), name
    assert ring.tokens.tolist() == [[-77] * 4, [2, 4, -1, 3], [-77] * 4]
    assert ring.logprobs[:, 1].tolist() == [[1, 2, 0, 1.5], [0.5, 1, 0, 0.75]]
    assert ring.logprobs[:, [0, 2]].isnan().all()


@pytest.mark.parametrize("begun", [0, 3])
def test_a_draw_beyond_the_ring_is_kept_nowhere(begun: int) -> None:
    batch = batch_of([1], [0], queue=[0], begun=begun)
    around = ring_of(4, 1)
    ring = Ring(around.tokens[1:3], around.logprobs[:, 1:3])
    slots = tensor([3], torch.int32)
    drawn = Drawn(slots + 2, *torch.zeros(2, 1, device=DEVICE))
    table = torch.zeros(1, VOCABULARY, dtype=torch.int16, device=DEVICE)
    end_step(batch, slots, drawn, table, 99, ring)
    assert (around.tokens == -77).all()
    assert around.logprobs.isnan().all()
    assert batch.named.tokens.tolist() == [5]


def test_a_batch_without_samples() -> None:
    batch = batch_of([1, 1], [-1, -1], queue=[0])
    batch = batch._replace(sample_rows=batch.sample_rows[:0], keys=batch.keys[:0])
    step = begin_step(batch, SIZE)
    nothing = Drawn(step.slots[:0], *torch.zeros(2, 0, device=DEVICE))
    table = torch.zeros(1, VOCABULARY, dtype=torch.int16, device=DEVICE)
    end_step(batch, step.slots, nothing, table, 9, ring_of(1, 0))
    assert step.slots.tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("rows", lambda x: x.int()),
        ("rows", lambda x: x[1:]),
        ("rows", lambda x: x.repeat_interleave(2, 1)[:, ::2]),
        ("pages", lambda x: x[:1]),
        ("pages", lambda x: x[:, :0]),
        ("pages", lambda x: x.long()),
        ("sample_rows", lambda x: x.long()),
        ("keys", lambda x: x[:1]),
        ("control", lambda x: x.int()),
        ("control", lambda x: x[1:]),
        ("queue", lambda x: x.long()),
    ],
)
def test_steps_refuse_a_batch_that_does_not_fit(name: str, wrong: object) -> None:
    batch = batch_of([1, 2], [0, 0], queue=[3])
    assert callable(wrong)
    with pytest.raises(ValueError, match=f"{name}: expected"):
        begin_step(batch._replace(**{name: wrong(getattr(batch, name))}), SIZE)


def test_steps_refuse_what_was_drawn_where_it_does_not_fit() -> None:
    batch = batch_of([1, 2], [0, 0], queue=[3, 4])
    slots, table = (
        begin_step(batch, SIZE).slots,
        torch.zeros(1, 5, dtype=torch.int16, device=DEVICE),
    )
    drawn, ring = Drawn(slots, *torch.zeros(2, 2, device=DEVICE)), ring_of(4, 2)
    with pytest.raises(ValueError, match="slots"):
        end_step(batch, slots.long(), drawn, table, 9, ring)
    with pytest.raises(ValueError, match=r"drawn.logprobs: expected contiguous float32"):
        end_step(batch, slots, drawn._replace(logprobs=slots.double()), table, 9, ring)
    with pytest.raises(ValueError, match=r"drawn.tokens"):
        end_step(batch, slots, drawn._replace(tokens=slots[:1]), table, 9, ring)
    with pytest.raises(ValueError, match="table"):
        end_step(batch, slots, drawn, table.long(), 9, ring)
    with pytest.raises(ValueError, match=r"ring.tokens"):
        end_step(batch, slots, drawn, table, 9, ring._replace(tokens=ring.tokens[:, :1]))
    with pytest.raises(ValueError, match=r"ring.logprobs"):
        end_step(batch, slots, drawn, table, 9, ring._replace(logprobs=ring.logprobs[:, :3]))
