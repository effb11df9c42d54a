"""Tree attention of one layer against per-sequence attention and the roofline.

Shapes are those peers publish: Hydragen's figure, FastTree's and PAT's trees, FlashInfer's cascade
case, DeFT's, and no sharing at all as control. Baselines: every sequence reads its own whole
history through torch's flash attention, grouped heads packed as its queries; and FlashInfer's
multi-level cascade over the same keys, where it is installed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from hydragen_bench import peer_flashinfer
from hydragen_bench.peer_flashinfer import Cascade, cascade_levels
from hydragen_bench.table import compared, line
from hydragen_bench.timing import (
    Ceilings,
    bench_device,
    bench_dtype,
    measure_ceilings,
    median_us,
    relative_error,
)
from hydragen_kernels.items import Item, item_columns, item_rows, item_table
from hydragen_kernels.segment import segment_attention
from hydragen_kernels.segment_tiles import SegmentTiles
from hydragen_kernels.tail import tail_attention
from hydragen_tree.attention.heads import Heads

PAGE_TOKENS = 64
_BASELINE_BYTES = 50e9  # a baseline whose unshared keys need more is left out


@dataclass(frozen=True, slots=True)
class Shape:
    """A tree of decode rows: `nodes` and `tokens` a level from the root; the last level are tails.

    Every level's nodes are spread evenly under the level above; the last has one node a row.
    """

    name: str
    nodes: tuple[int, ...]
    tokens: tuple[int, ...]
    q_heads: int
    kv_heads: int
    head_dim: int = 128

    @property
    def rows(self) -> int:
        """Rows of the decode batch."""
        return self.nodes[-1]

    def items(self) -> np.ndarray:
        """The segment items, as `schedule_segments` takes them."""
        result, slot = [], 0
        for level, (nodes, tokens) in enumerate(
            zip(self.nodes[:-1], self.tokens[:-1], strict=True)
        ):
            edges = np.linspace(0, self.rows, nodes + 1).astype(int)
            for first, end in pairwise(edges):
                result.append(Item(first, end - first, slot, tokens, causal=0, level=level))
                slot += tokens
        return item_table(result)

    def least_us(self, ceilings: Ceilings) -> float:
        """Segments level by level, then tails, each at the device's ceilings."""
        key_bytes = self.kv_heads * self.head_dim * 4
        key_flops = self.q_heads * self.head_dim * 4
        levels = [
            ceilings.least_us(n * t * key_bytes, self.rows * t * key_flops)
            for n, t in zip(self.nodes, self.tokens, strict=True)
        ]
        return sum(levels)


def _short(numbers: tuple[int, ...]) -> str:
    """Numbers separated by commas, the middle of many left out."""
    shown = [str(number) for number in numbers]
    return ",".join(shown if len(shown) <= 5 else [*shown[:2], "...", *shown[-2:]])


SHAPES = (
    *(
        Shape(f"hydragen {rows} x {prefix}, {tail}", (1, rows), (prefix, tail), 8, 1)
        for rows, prefix in ((512, 1024), (1024, 2048), (2048, 4096), (4096, 8192))
        for tail in (16, 128, 512)
    ),
    *(
        Shape(f"fasttree {_short(nodes)}|{_short(tokens)} {q}/{kv}", nodes, tokens, q, kv)
        for nodes, tokens in (
            ((1, 1024), (2048, 32)),
            ((1, 16, 64), (1024, 256, 32)),
            ((1, 4, 16, 512), (1024, 256, 128, 32)),
            ((1, 10), (4000, 400)),
            ((*(2**i for i in range(8)), 1024), (16,) * 9),
        )
        for q, kv in ((32, 32), (32, 8), (16, 1))
    ),
    Shape("pat forest", (8, 16, 32, 256), (512, 512, 256, 32), 32, 8),
    Shape("pat, nothing shared", (256,), (1024,), 32, 8),
    Shape("flashinfer cascade", (1, 256), (32768, 32), 32, 8),
    Shape("deft", (1, 50), (4000, 400), 32, 32),
    Shape("codellama-13b 1024 x 16K, 64", (1, 1024), (16384, 64), 40, 40),
    Shape("codellama-13b 32 x 16K, 128", (1, 32), (16384, 128), 40, 40),
    Shape("llama-3.1-8b 2048 x 16K, 256", (1, 2048), (16384, 256), 32, 8),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One shape's result; times of one layer in microseconds, `None` where it was left out.

    Attributes:
        shape: its name.
        error: of ours against float64.
        segments_us: our segments alone.
        tails_us: our tails alone, with the merge.
        total_us: both.
        roofline_us: the serial limit.
        per_sequence_us: flash attention over unshared histories.
        flashinfer_us: FlashInfer's cascade.
        flashinfer_error: of FlashInfer's against float64.
    """

    shape: str
    error: float
    segments_us: float
    tails_us: float
    total_us: float
    roofline_us: float
    per_sequence_us: float | None
    flashinfer_us: float | None = None
    flashinfer_error: float | None = None

    def __str__(self) -> str:
        """A line of the table, under `HEADING`."""
        times = (self.segments_us, self.tails_us, self.total_us, self.roofline_us)
        return f"{self.shape:58s}" + line(
            (
                *(f"{us:.1f}" for us in times),
                f"{self.roofline_us / self.total_us:.0%}",
                *compared(self.total_us, self.per_sequence_us),
                *compared(self.total_us, self.flashinfer_us),
            )
        )


_COLUMNS = ("segments", "tails", "total", "roofline", "reached")
HEADING = f"{'shape':58s}" + line((*_COLUMNS, "per-seq", "ratio", "flashinf", "ratio"))


class Layer:
    """Random keys, values and queries of a shape, with all that the kernels take."""

    def __init__(self, shape: Shape) -> None:
        self.shape, self.items = shape, shape.items()
        device, dtype = bench_device(), bench_dtype()
        shared = int(item_columns(self.items).slot_count.sum())
        first_page = -(-shared // PAGE_TOKENS)
        row_pages = -(-shape.tokens[-1] // PAGE_TOKENS)
        slots = (first_page + shape.rows * row_pages) * PAGE_TOKENS
        size = (shape.kv_heads, slots, shape.head_dim)
        self.keys, self.values = (torch.randn(size, device=device, dtype=dtype) for _ in range(2))
        self.queries = torch.randn(
            shape.rows, shape.q_heads, shape.head_dim, device=device, dtype=dtype
        )
        pages = torch.arange(shape.rows * row_pages, dtype=torch.int32, device=device) + first_page
        self.page_table = pages.view(shape.rows, row_pages)
        self.lengths = torch.full((shape.rows,), shape.tokens[-1], dtype=torch.int32, device=device)
        heads = Heads(shape.q_heads, shape.kv_heads, shape.head_dim, dtype, device)
        schedule = heads.schedule(self.items, shape.rows, None)
        self.tables = SegmentTiles(schedule, device)
        self.partial_out, self.partial_lse = (
            part.fill_(torch.nan)
            for part in heads.partials(max(1, schedule.partial_slots), shape.rows)
        )
        self.scale = shape.head_dim**-0.5
        self.splits = heads.splits(shape.rows, shape.tokens[-1])

    def segments(self) -> None:
        """The partials of all segments."""
        segment_attention(
            self.queries,
            self.keys,
            self.values,
            self.tables,
            self.partial_out,
            self.partial_lse,
            scale=self.scale,
        )

    def tails(self) -> Tensor:
        """The output, from the partials and the tails."""
        out, _ = tail_attention(
            self.queries,
            self.keys,
            self.values,
            self.page_table,
            self.lengths,
            PAGE_TOKENS,
            self.partial_out,
            self.partial_lse,
            self.tables.counts,
            scale=self.scale,
            splits=self.splits,
        )
        return out

    def both(self) -> Tensor:
        """Attention of the layer."""
        self.segments()
        return self.tails()

    def cascade(self) -> Cascade:
        """The same by FlashInfer."""
        tails = self.page_table.cpu().numpy(), self.lengths.cpu().numpy()
        levels = cascade_levels(self.items, *tails, PAGE_TOKENS)
        return Cascade(levels, self.queries, self.keys, self.values, self.scale)

    def row_slots(self, row: int) -> Tensor:
        """The slots of a row's whole history."""
        parts = [
            torch.arange(item.slot_start, item.slot_stop)
            for item in item_rows(self.items)
            if item.query_start <= row < item.query_stop
        ]
        position = torch.arange(self.shape.tokens[-1])
        pages = self.page_table[row].cpu().long()
        parts.append(pages[position // PAGE_TOKENS] * PAGE_TOKENS + position % PAGE_TOKENS)
        return torch.cat(parts).to(self.keys.device)

    def error(self, out: Tensor, rows: int = 16) -> float:
        """The relative error of some rows of an output against float64."""
        chosen = np.unique(np.linspace(0, self.shape.rows - 1, rows).astype(int)).tolist()
        found, expected = [], []
        for row in chosen:
            own = self.row_slots(row)
            query = self.queries[row].double().view(self.shape.kv_heads, -1, self.shape.head_dim)
            scores = query @ self.keys[:, own].double().mT * self.scale
            value = torch.softmax(scores, -1) @ self.values[:, own].double()
            expected.append(value.flatten(0, 1))
            found.append(out[row])
        return relative_error(torch.stack(found), torch.stack(expected))

    def per_sequence_us(self) -> float | None:
        """The time of flash attention over every row's own copy of its history."""
        shape, length = self.shape, sum(self.shape.tokens)
        size = (shape.rows, shape.kv_heads, length, shape.head_dim)
        if 4 * np.prod(size, dtype=float) > _BASELINE_BYTES:
            return None
        like = self.queries
        keys, values = (torch.randn(size, device=like.device, dtype=like.dtype) for _ in range(2))
        queries = like.view(shape.rows, shape.kv_heads, -1, shape.head_dim)
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return median_us(
                lambda: torch.nn.functional.scaled_dot_product_attention(queries, keys, values), 5
            )

    def flashinfer(self) -> tuple[float, float]:
        """The time of FlashInfer's cascade, and its relative error.

        Raises:
            AssertionError: it is further off than rounding explains.
        """
        cascade = self.cascade()
        error = self.error(cascade())
        if not error < peer_flashinfer.TOLERANCE:
            raise AssertionError(f"relative error {error}")
        return median_us(cascade), error


def measure(shape: Shape, ceilings: Ceilings, flashinfer: bool) -> Row:
    """Check one shape, then time it; FlashInfer on the same keys, if asked.

    Raises:
        AssertionError: our own error is more than rounding explains.
    """
    layer = Layer(shape)
    error = layer.error(layer.both())
    if not error < 5e-3:
        raise AssertionError(f"{shape.name}: relative error {error}")
    theirs = peer_flashinfer.attempt(shape.name, layer.flashinfer) if flashinfer else None
    return Row(
        shape.name,
        error,
        median_us(layer.segments),
        median_us(layer.tails),
        median_us(layer.both),
        shape.least_us(ceilings),
        layer.per_sequence_us(),
        *(theirs or ()),
    )


def run(shapes: Sequence[Shape] = SHAPES) -> dict[str, Any]:
    """Measure shapes, print a table, return its figures."""
    torch.manual_seed(0)
    ceilings = measure_ceilings()
    print(ceilings)
    version = peer_flashinfer.find_flashinfer()
    print("times of one layer in us; per-seq: flash attention over unshared histories")
    print(HEADING, flush=True)
    rows = []
    for shape in shapes:
        rows.append(measure(shape, ceilings, version is not None))
        print(rows[-1], flush=True)
        torch.cuda.empty_cache()
    return {**asdict(ceilings), "flashinfer": version, "rows": [asdict(row) for row in rows]}


if __name__ == "__main__":
    run()
