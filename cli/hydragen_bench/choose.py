"""Drawing tokens from logits against the usual way: sort, cumulate, mask, draw.

And against FlashInfer's sampling, where it is installed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hydragen_bench import peer_flashinfer
from hydragen_bench.table import compared, line
from hydragen_bench.timing import (
    Ceilings,
    bench_device,
    bench_dtype,
    measure_ceilings,
    median_us,
)
from hydragen_kernels import reference_choice
from hydragen_kernels.choose import choose

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"temperature": 0.8},
    "top-p 0.95": {"temperature": 0.8, "top_p": 0.95},
    "top-k 50, top-p 0.95": {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
    "greedy": {"temperature": 0.0},
}
SIZES = ((1024, 32_000), (1024, 128_256), (32, 128_256), (1, 128_256))


@dataclass(frozen=True, slots=True)
class Row:
    """One size and setting; times in microseconds, bf16 logits, a sample a row, 1000 for one.

    Attributes:
        rows: of logits.
        vocab: tokens to choose from.
        settings: their name.
        agree: the share of some samples that are the reference's.
        ours_us: ours.
        read_once_us: what reading the logits takes at the least.
        sorted_us: the usual torch code.
        flashinfer_us: FlashInfer's kernels; None where they have no such form, or were left out.
    """

    rows: int
    vocab: int
    settings: str
    agree: float
    ours_us: float
    read_once_us: float
    sorted_us: float
    flashinfer_us: float | None = None

    def __str__(self) -> str:
        """A line of the table, under `HEADING`."""
        name = f"{self.rows} x {self.vocab}, {self.settings}"
        cells = (
            f"{self.agree:.0%}",
            f"{self.ours_us:.1f}",
            f"{self.read_once_us:.1f}",
            *compared(self.ours_us, self.sorted_us, 1),
            *compared(self.ours_us, self.flashinfer_us, 1),
        )
        return f"{name:45s}{line(cells, 12)}"


_COLUMNS = ("agree", "choose", "read once", "by sorting", "ratio", "flashinfer", "ratio")
HEADING = f"{'rows x vocabulary, settings':45s}{line(_COLUMNS, 12)}"


def by_sorting(logits: Tensor, temperature: float, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Draw one token a row the usual way."""
    if temperature == 0.0:
        return logits.argmax(-1)
    scores = logits.float() / temperature
    if top_k:
        kth = scores.topk(top_k).values[:, -1:]
        scores = scores.masked_fill(scores < kth, -torch.inf)
    if top_p < 1.0:
        ordered, order = scores.sort()
        cut = ordered.softmax(-1).cumsum(-1) <= 1.0 - top_p
        scores = scores.masked_fill(cut.scatter(1, order, cut), -torch.inf)
    weights = scores.softmax(-1)
    return (weights / torch.empty_like(weights).exponential_()).argmax(-1)


class Case:
    """Random logits of one size, and who draws from them.

    Args:
        rows: of logits.
        vocab: tokens to choose from.
    """

    def __init__(self, rows: int, vocab: int) -> None:
        device = bench_device()
        samples = 1000 if rows == 1 else rows
        self.logits = (torch.randn(rows, vocab, device=device) * 2.5).to(bench_dtype())
        self.own = torch.arange(samples, dtype=torch.int32, device=device) % rows
        keys = torch.randint(-(2**62), 2**62, (samples,), device=device)
        positions = torch.zeros(samples, dtype=torch.int32, device=device)
        self.arguments = (self.logits, self.own, keys, positions)

    def agree(self, settings: dict[str, Any], few: int = 24) -> float:
        """The share of some samples that are the reference's."""
        logits, *others = self.arguments
        expected = reference_choice.choose(
            logits.cpu(), *(x[:few].cpu() for x in others), **settings
        )
        found = choose(*self.arguments, **settings).tokens[:few].cpu()
        return float((found == expected.tokens).float().mean())

    def flashinfer_us(self, settings: dict[str, Any]) -> float | None:
        """The time of FlashInfer's kernels, checked first; None where they have no such form.

        Raises:
            AssertionError: its draws are not the reference's distribution.
        """
        draw = peer_flashinfer.drawer(self.logits, self.own, **settings)
        if draw is None:
            return None
        peer_flashinfer.check_draws(self.logits, settings)
        return median_us(draw)

    def measure(self, name: str, ceilings: Ceilings, flashinfer: bool) -> Row:
        """All who draw, with the settings of this name."""
        settings = SETTINGS[name]
        rows, vocab = self.logits.shape
        theirs = None
        if flashinfer:
            theirs = peer_flashinfer.attempt(name, partial(self.flashinfer_us, settings))
        return Row(
            rows,
            vocab,
            name,
            self.agree(settings),
            median_us(lambda: choose(*self.arguments, **settings)),
            self.logits.nbytes / ceilings.copy_tb_s / 1e6,
            median_us(lambda: by_sorting(self.logits, **settings), 5),
            theirs,
        )


def run(sizes: Sequence[tuple[int, int]] = SIZES) -> dict[str, Any]:
    """Measure sizes (rows, vocabulary) and all settings, print a table, return its figures."""
    torch.manual_seed(0)
    ceilings = measure_ceilings()
    print(ceilings)
    version = peer_flashinfer.find_flashinfer()
    print(f"times in us; by sorting draws one sample a row\n{HEADING}", flush=True)
    result: list[Row] = []
    for size in sizes:
        case = Case(*size)
        for name in SETTINGS:
            result.append(case.measure(name, ceilings, version is not None))
            print(result[-1], flush=True)
    return {**asdict(ceilings), "flashinfer": version, "rows": [asdict(row) for row in result]}


if __name__ == "__main__":
    run()
