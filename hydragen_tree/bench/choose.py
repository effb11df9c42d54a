"""Drawing tokens from logits against the usual way: sort, cumulate, mask, draw."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from hydragen_kernels import reference_choice
from hydragen_kernels.choose import choose
from hydragen_tree.bench.timing import measure_ceilings, median_us

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"temperature": 0.8},
    "top-p 0.95": {"temperature": 0.8, "top_p": 0.95},
    "top-k 50, top-p 0.95": {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
    "greedy": {"temperature": 0.0},
}
SIZES = ((1024, 32_000), (1024, 128_256), (32, 128_256), (1, 128_256))


@dataclass(frozen=True, slots=True)
class Row:
    """One size and setting; times in microseconds, bf16 logits, a sample a row, 1000 for one."""

    rows: int
    vocab: int
    settings: str
    agree: float
    ours_us: float
    read_once_us: float
    sorted_us: float


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


def run() -> list[dict[str, object]]:
    """Measure all sizes and settings, print a table, return its rows."""
    torch.manual_seed(0)
    ceilings = measure_ceilings()
    print(f"{ceilings.device}: copy {ceilings.copy_tb_s:.2f} TB/s; times in us")
    heading = ("agree", "choose", "read once", "by sorting", "ratio")
    print(f"{'rows x vocabulary, settings':45s}" + "".join(f"{name:>12s}" for name in heading))
    result = []
    for rows, vocab in SIZES:
        logits = (torch.randn(rows, vocab, device="cuda") * 2.5).bfloat16()
        samples = 1000 if rows == 1 else rows
        own = torch.arange(samples, dtype=torch.int32, device="cuda") % rows
        keys = torch.randint(-(2**62), 2**62, (samples,), device="cuda")
        positions = torch.zeros(samples, dtype=torch.int32, device="cuda")
        for name, settings in SETTINGS.items():
            arguments = (logits, own, keys, positions)
            few = min(24, samples)
            expected = reference_choice.choose(
                logits.cpu(), *(x[:few].cpu() for x in arguments[1:]), **settings
            )
            found = choose(*arguments, **settings).tokens[:few].cpu()
            row = Row(
                rows,
                vocab,
                name,
                float((found == expected.tokens).float().mean()),
                median_us(lambda a=arguments, s=settings: choose(*a, **s)),  # type: ignore[misc]
                logits.nbytes / ceilings.copy_tb_s / 1e6,
                median_us(lambda x=logits, s=settings: by_sorting(x, **s), 5),  # type: ignore[misc]
            )
            print(
                f"{f'{rows} x {vocab}, {name}':45s}{row.agree:12.0%}{row.ours_us:12.1f}"
                f"{row.read_once_us:12.1f}{row.sorted_us:12.1f}{row.sorted_us / row.ours_us:12.1f}",
                flush=True,
            )
            result.append(asdict(row))
    return result


if __name__ == "__main__":
    run()
