"""`hydragen bench stack`: how good a model is with its linear layers in so many bytes.

A stack (`hydragen stack`) is loaded in the sizes that rounding takes, and compared with it: weights
rounded to the nearest of 2^bits numbers between the least and the greatest of 64 neighbours along
the inputs, of which there are two float16 numbers for each group. Embeddings, the head and norms
are as the model has them in every row, and are not counted. All of it runs in float32.

    bits        of a weight of a linear layer, whatever belongs to it included
    MB          of all linear layers
    perplexity  of the text, in rows of 512 tokens
    solved      pass@1 of the problems
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from hydragen_bench.table import line
from hydragen_tree.judge.judge import Judge
from hydragen_tree.model.calibration import perplexity, text_rows
from hydragen_tree.model.device import find_device
from hydragen_tree.model.loading import find_model, load_tokenizer, load_weights
from hydragen_tree.model.quantising import quantisable
from hydragen_tree.problem.reading import load_problems
from hydragen_tree.problem.types import Problem
from hydragen_tree.run import run as run_problems
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings

BITS = (1, 2, 3, 4, 6, 8)
GROUP = 64
_GROUP_BITS = 2 * 16 / GROUP  # the least number and the step, for each weight
_ROW_TOKENS = 512
_SHOWN = 1e5  # perplexity from which powers of ten are printed
_NAME = 14  # characters of a row's name in the table


class Asked(NamedTuple):
    """What is measured, and with what.

    Attributes:
        model: the model itself.
        stack: made of it.
        text: files; what is read of them at the most is the same number of rows for each.
        rows: of text, from all files.
        problem: a file or directory of problems; None: nothing is drawn.
        samples: of each problem.
        settings: how to draw.
    """

    model: str
    stack: str
    text: Sequence[Path]
    rows: int = 16
    problem: Path | None = None
    samples: int = 50
    settings: SamplingSettings = SamplingSettings()


@dataclass(frozen=True, slots=True)
class Row:
    """One form of the model; see the module.

    Attributes:
        form: `model`, `4 bits, rounded`, `4 bits, stack`.
        bits: of a weight.
        n_bytes: of the linear layers.
        perplexity: of the text.
        solved: pass@1; None: nothing was drawn.
    """

    form: str
    bits: float
    n_bytes: int
    perplexity: float
    solved: float | None


def rounded(weight: Tensor, bits: int, group: int = GROUP) -> Tensor:
    """The nearest of 2^bits numbers between the least and the greatest of each group.

    Args:
        weight: `[out, in]`.
        bits: of a weight.
        group: neighbours along the inputs that share their numbers; the last one may be shorter.
    """
    parts = []
    for part in weight.float().split(group, 1):
        least, most = part.aminmax(dim=1, keepdim=True)
        least = least.half().float()
        step = ((most - least) / (2**bits - 1)).half().float().clamp(min=1e-7)
        parts.append(((part - least) / step).round().clamp(0, 2**bits - 1) * step + least)
    return torch.cat(parts, 1).to(weight.dtype)


def measure(asked: Asked) -> Iterator[Row]:
    """Yields the model, and for each number of bits both forms of it."""
    source = find_model(asked.model, dtype="float32")
    tokenizer = load_tokenizer(source)
    share = -(-asked.rows // len(asked.text))
    texts = (path.read_text(encoding="utf-8") for path in asked.text)
    rows = torch.cat([text_rows(tokenizer, text, _ROW_TOKENS, share) for text in texts])
    problems = [] if asked.problem is None else load_problems([str(asked.problem)])
    model = load_weights(source)
    layers = dict(quantisable(model))
    exact = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    numbers = sum(weight.numel() for weight in exact.values())
    stack = find_model(asked.stack, dtype="float32").stack
    assert stack is not None
    rest = sum(x.nbytes for x in model.parameters()) - numbers * torch.float32.itemsize
    stored = source.config.dtype.itemsize
    solved = _solved(Sampler(source), problems, asked)
    yield Row("model", 8 * stored, numbers * stored, perplexity(model, rows), solved)
    for bits in BITS:
        n_bytes = round(numbers * (bits + _GROUP_BITS) / 8)
        with torch.no_grad():
            for name, layer in layers.items():
                layer.weight.copy_(rounded(exact[name], bits))
        unsure = perplexity(model, rows)
        with TemporaryDirectory() as folder:
            solved = None
            if problems:
                model.save_pretrained(folder)
                tokenizer.save_pretrained(folder)
                solved = _solved(Sampler.from_pretrained(folder, dtype="float32"), problems, asked)
        yield Row(f"{bits} bits, rounded", 8 * n_bytes / numbers, n_bytes, unsure, solved)
        if n_bytes + rest < stack.least_bytes:
            continue
        part = find_model(asked.stack, dtype="float32", weights_memory=n_bytes + rest)
        assert part.stack is not None
        n_bytes = part.stack.n_bytes - rest
        unsure = perplexity(load_weights(part), rows)
        solved = _solved(Sampler(part), problems, asked)
        yield Row(f"{bits} bits, stack", 8 * n_bytes / numbers, n_bytes, unsure, solved)


def run(asked: Asked) -> dict[str, Any]:
    """Measures, prints a table and returns its figures.

    Raises:
        ModelError: a model is missing or broken, or the stack is none.
    """
    disable_progress_bar()
    drawn = f"; pass@1 of {asked.problem}, n = {asked.samples}" if asked.problem else ""
    print(f"{asked.model}, perplexity of {', '.join(map(str, asked.text))}{drawn}", flush=True)
    print(f"{'':{_NAME}s}{line(('bits', 'MB', 'perplexity', 'solved'), 12)}")
    rows = []
    for row in measure(asked):
        rows.append(row)
        solved = "-" if row.solved is None else f"{row.solved:.1%}"
        unsure = f"{row.perplexity:.3f}" if row.perplexity < _SHOWN else f"{row.perplexity:.1e}"
        cells = f"{row.bits:.2f}", f"{row.n_bytes / 1e6:.2f}", unsure, solved
        print(f"{row.form:{_NAME}s}{line(cells, 12)}", flush=True)
    device = str(find_device("auto"))
    return {"device": device, "model": asked.model, "rows": [asdict(row) for row in rows]}


def _solved(sampler: Sampler, problems: Sequence[Problem], asked: Asked) -> float | None:
    """pass@1 over the problems."""
    if not problems:
        return None
    with Judge(cache=False) as judge:
        summary = run_problems(
            problems,
            asked.samples,
            sampler=sampler,
            settings=asked.settings,
            judge=judge,
            ks=[1],
        )
    assert summary is not None
    return summary.overall.estimates[0].value
