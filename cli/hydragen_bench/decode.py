"""`hydragen bench decode`: whole decode steps of a named architecture, against yardsticks.

    tree          a shared prefix, `rows` samples of it, by the sampler's own loop
    unshared      the same graphs and kernels, every row with a private copy of the prefix, at the
                  greatest number of rows that memory holds
    no attention  the same graphs with attention left out: what sharing can gain at the most
    roofline      linear layers, prefix and tails at the ceilings measured in this run, in series;
                  once with the products' rate in a burst, and, as `sustained`, with the rate the
                  device holds under its power limit
    floor         the same with the products' measured time: what a step takes at the least with the
                  products that the libraries have for so few rows
    vllm          on request: as many samples, weights drawn alike, in vLLM, see `peer_vllm.py`

Weights are random. Tokens a second are those of decoding in the steady state; prefill and the first
steps, in which samples still share rows, are given in seconds, and what the host costs a step of
that kind in milliseconds (`forks.py`). Before anything is timed, a step's logits are compared with
plain torch.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from hydragen_bench import peer_vllm
from hydragen_bench.configs import (
    Point,
    points_of,
    quantise_weights,
    random_model,
    random_weights,
)
from hydragen_bench.forks import forks_tokens, measure_forks
from hydragen_bench.peer_vllm import Vllm
from hydragen_bench.peers import Peer
from hydragen_bench.rig import (
    PAGE_TOKENS,
    Rig,
    WithoutAttention,
    fork,
    pages_for,
    random_prompt,
)
from hydragen_bench.table import line
from hydragen_bench.timing import Ceilings, measure_ceilings, median_us, seconds
from hydragen_kernels.batch_state import RowState
from hydragen_kernels.inputs import FP8, dtype_name
from hydragen_kernels.items import item_table
from hydragen_tree.branch.chunk import CHUNK_STEPS
from hydragen_tree.branch.device_batch import NewRows, row_fields
from hydragen_tree.errors import InputError
from hydragen_tree.model.expert_layers import experts_chosen
from hydragen_tree.model.projections import products_of
from hydragen_tree.model.support import attention_layers
from hydragen_tree.settings import SamplingSettings

_PRODUCTS_REPEATS = 60  # the clock falls within the first second of large ones
_SPARE_PAGES = 64  # beside those that rows fill in the end: for tails that become segments


@dataclass(frozen=True, slots=True)
class Row:
    """One batch.

    Attributes:
        rows: samples, each a row in the steady state.
        prefix: tokens of the shared prompt.
        new_tokens: of every sample.
        prefill_s: seconds of the prompt.
        forking_s: seconds of the steps until every sample had a row of its own.
        fork_ms: milliseconds a step while samples share rows; None: none did.
        step_ms: milliseconds of a steady step.
        products_ms: milliseconds of the step's matrix products alone, one after the other.
        tokens_s: tokens a second of the tree, and of each yardstick: `sustained_tokens_s` is the
            roofline with the products' rate that the device holds.
        unshared_rows: rows that fit unshared.
        vllm_tokens_s: None where it was not asked for.
    """

    rows: int
    prefix: int
    new_tokens: int
    prefill_s: float
    forking_s: float
    fork_ms: float | None
    step_ms: float
    products_ms: float
    tokens_s: float
    roofline_tokens_s: float
    sustained_tokens_s: float
    floor_tokens_s: float
    no_attention_tokens_s: float
    unshared_rows: int
    unshared_tokens_s: float
    vllm_tokens_s: float | None = None

    def __str__(self) -> str:
        """A line of the table, under `HEADING`."""
        speed, vllm = self.tokens_s, self.vllm_tokens_s
        return line(
            (
                f"{self.rows}",
                f"{self.prefix}",
                f"{self.new_tokens}",
                f"{self.prefill_s:.2f}",
                f"{self.forking_s:.2f}",
                "-" if self.fork_ms is None else f"{self.fork_ms:.2f}",
                f"{self.step_ms:.2f}",
                f"{self.products_ms:.2f}",
                f"{speed:.0f}",
                f"{self.roofline_tokens_s:.0f}",
                f"{speed / self.roofline_tokens_s:.0%}",
                f"{speed / self.sustained_tokens_s:.0%}",
                f"{speed / self.floor_tokens_s:.0%}",
                f"{self.no_attention_tokens_s:.0f}",
                f"{speed / self.no_attention_tokens_s:.0%}",
                f"{self.unshared_tokens_s:.0f}",
                f"{self.unshared_rows}",
                f"{speed / self.unshared_tokens_s:.1f}",
                *(("-", "-") if vllm is None else (f"{vllm:.0f}", f"{speed / vllm:.1f}")),
            )
        )


_COLUMNS = ("rows", "prefix", "new", "prefill_s", "forking_s", "fork_ms", "step_ms")
_CEILINGS = ("products", "tree", "roofline", "reached", "sustained", "of_floor", "no_attn", "of_it")
_PEERS = ("unshared", "at_rows", "ratio", "vllm", "ratio")
HEADING = line((*_COLUMNS, *_CEILINGS, *_PEERS))


def settings_of(max_tokens: int) -> SamplingSettings:
    """Plain sampling, to the last token."""
    return SamplingSettings(temperature=1.0, max_tokens=max_tokens)


def tokens_needed(point: Point) -> int:
    """Tokens whose keys and values a batch may hold."""
    own = point.rows * in_pages(point.new_tokens)
    return point.prefix + own + _SPARE_PAGES * PAGE_TOKENS


def in_pages(tokens: int) -> int:
    """The slots of the pages that hold so many tokens."""
    return pages_for(tokens) * PAGE_TOKENS


def time_tree(rig: Rig, point: Point) -> tuple[float, float, float]:
    """Seconds of prefill, of the steps that fork, and of one steady step."""
    rows, settings = point.rows, settings_of(point.new_tokens)
    prompt = random_prompt(point.prefix, rig.vocabulary)
    cache = rig.cache(tokens_needed(point), rows, point.prefix)
    decoder = rig.decoder(cache, settings, rows, 1)
    rig.warm_up(rig.run([prompt], rows, settings, rows, cache, decoder), decoder)
    loop = rig.run([prompt], rows, settings, rows, cache, decoder)
    prefill_s = seconds(loop.admission.admit)
    forking_s = seconds(partial(fork, loop))
    before = loop.stats.rows_computed
    steady_s = seconds(lambda: list(loop.samples()))
    return prefill_s, forking_s, steady_s * rows / (loop.stats.rows_computed - before)


def time_private(rig: Rig, rows: int, length: int, new_tokens: int) -> float:
    """Seconds of a step of rows whose tails hold `length` tokens when it starts."""
    cache = rig.cache(rows * in_pages(length + new_tokens), rows, 0)
    decoder = rig.decoder(cache, settings_of(length + new_tokens), rows, 1)
    pages = cache.take(cache.n_pages).reshape(rows, -1)
    pages = np.pad(pages, ((0, 0), (0, 1)), constant_values=-1)  # decoders keep one to spare
    row = RowState(
        tokens=1,
        positions=length,
        lengths=length,
        drawn=length,
        groups=0,
        stops=0,
        fresh=-1,
        contexts=0,
        problems=0,
    )
    every = np.arange(rows)
    states = np.repeat(cache.states.take_rows(1), rows)
    new = NewRows(row_fields([row] * rows), pages, every, every, every.astype(np.uint64), states)
    decoder.batch.set_groups(np.array([0]), np.array([rows]))
    decoder.batch.rearrange(new, every[:0])
    decoder.plan([item_table()] * len(cache.arenas), np.array([0, rows], np.int32), rows)
    choice = decoder.choose(rows, length + new_tokens, forks=False)
    launch = partial(decoder.launch, choice, CHUNK_STEPS)

    def chunks(count: int) -> None:
        flying = launch()
        for _ in range(count - 1):
            following = launch()
            flying()
            flying = following
        flying()

    decoder.prepare(rows, length + new_tokens)
    chunks(1)
    count = new_tokens // CHUNK_STEPS - 1
    return seconds(partial(chunks, count)) / count / CHUNK_STEPS


def time_products(rig: Rig, rows: int) -> float:
    """Seconds of a step's matrix products and nothing else, the head's included."""
    model = rig.model.model
    steps = products_of(model)
    inputs = {
        width: torch.randn(rows, width, device=model.device, dtype=model.dtype)
        for width, _ in steps
    }

    def products() -> None:
        for width, product in steps:
            product(inputs[width])

    with torch.inference_mode():
        return 1e-6 * median_us(products, _PRODUCTS_REPEATS)


def linear_s(rig: Rig, ceilings: Ceilings, rows: int) -> float:
    """The least time of a step's linear layers; of experts, those that rows choose."""
    model = rig.model.model
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    chosen = experts_chosen(model.config)
    n_bytes, work = 0.0, 0.0
    for weight in model.parameters():
        if weight is embedding and weight is not head:
            continue
        # weights of all experts of a layer are one tensor; here each is chosen as often as others
        share = chosen / len(weight) if weight.ndim == 3 and chosen else 1.0
        n_bytes += weight.nbytes * (1.0 - (1.0 - share) ** rows)
        work += weight.numel() * share / (ceilings.fp8_ratio if weight.dtype == FP8 else 1.0)
    return 1e-6 * ceilings.least_us(n_bytes, 2 * work * rows)


def attention_s(rig: Rig, ceilings: Ceilings, point: Point) -> float:
    """The least time of a step's attention: of prefix, then half-grown tails, what layers see."""
    shape = rig.shape
    rows, tail = point.rows, point.new_tokens // 2
    flops = 4 * shape.q_heads * shape.head_dim * rows
    spent = 0.0
    for layer in attention_layers(rig.model.model.config):
        window = rig.windows[layer]
        seen = point.prefix + tail if window is None else min(window.tokens, point.prefix + tail)
        own = min(tail, seen)
        shared = (seen - own) * shape.layer_token_bytes
        alone = own * rows * shape.tail_token_bytes // shape.layers
        for n_keys, n_bytes in ((seen - own, shared), (own, alone)):
            spent += 1e-6 * ceilings.least_us(n_bytes, n_keys * flops)
    return spent


def measure(rig: Rig, bare: Rig, ceilings: Ceilings, point: Point, vllm: Vllm | None) -> Row | None:
    """One batch; None where memory does not hold it.

    Args:
        rig: the model.
        bare: the same without attention.
        ceilings: of the device.
        point: the batch.
        vllm: what vLLM has reached.
    """
    rows, prefix, new_tokens = point
    most = max(tokens_needed(point), forks_tokens(rows, prefix))
    if most > rig.tokens_that_fit(rows, prefix):
        return None
    prefill_s, forking_s, step_s = time_tree(rig, point)
    forks = measure_forks(rig, rows, prefix)
    bare_s = time_private(bare, rows, 0, new_tokens)
    products_s = time_products(rig, rows)
    held = ceilings.sustained()
    fits = rig.tokens_that_fit(rows, 0) // in_pages(prefix + new_tokens)
    alone = min(rows, fits)
    return Row(
        *point,
        prefill_s,
        forking_s,
        None if forks is None else forks.step_ms,
        1e3 * step_s,
        1e3 * products_s,
        rows / step_s,
        rows / (linear_s(rig, ceilings, rows) + attention_s(rig, ceilings, point)),
        rows / (linear_s(rig, held, rows) + attention_s(rig, held, point)),
        rows / (products_s + attention_s(rig, ceilings, point)),
        rows / bare_s,
        alone,
        alone / time_private(rig, alone, prefix, new_tokens),
        None if vllm is None else vllm.tokens_s[point],
    )


def check_points(points: Sequence[Point]) -> None:
    """Makes sure that a batch's steps can be timed: one chunk to warm up, one to time.

    Raises:
        InputError: one has too few new tokens.
    """
    if min(point.new_tokens for point in points) < 2 * CHUNK_STEPS:
        raise InputError(f"expected NEW of at least {2 * CHUNK_STEPS} tokens", setting="points")


def run(
    name: str = "llama-3.1-8b",
    points: Sequence[Point] = (),
    in_fp8: bool = False,
    weights_in_fp8: bool = False,
    peer: Peer | None = None,
) -> dict[str, Any]:
    """Measures, prints a table and returns its figures.

    Args:
        name: of the architecture, see `config_of`.
        points: the batches; none: those of the architecture.
        in_fp8: keep keys and values in fp8.
        weights_in_fp8: linear layers but the head multiply fp8.
        peer: vLLM, to measure that too.

    Raises:
        InputError: a batch has too few new tokens to time.
        HydragenError: vLLM failed, or our own logits are wrong.
    """
    points = points or points_of(name)
    check_points(points)
    ceilings = measure_ceilings(weights_in_fp8)
    vllm = None
    if peer is not None:  # first: it needs the memory for itself
        vllm = peer_vllm.measure(name, points, peer)
    kept = ", keys and values in fp8" if in_fp8 else ""
    weights = random_weights(name)
    error = quantise_weights(weights) if weights_in_fp8 else None
    rounded = "" if error is None else f" in fp8 ({error.relative:.1%} off in logits)"
    print(f"{ceilings}; {name}, random weights{rounded}{kept}; tokens/s")
    if vllm is not None:
        print(vllm)
    print(HEADING, flush=True)
    model, shape = random_model(name, weights, has_latent_tails=not in_fp8)
    kv_dtype = FP8 if in_fp8 else None
    logit_error = None if error is None else error.relative
    rig = Rig(model, shape, int(model.model.config.vocab_size), kv_dtype, logit_error)
    adapted = WithoutAttention(model.model, has_latent_tails=shape.latent_dim > 0)
    bare = Rig(adapted, shape, rig.vocabulary, kv_dtype)
    result: list[Row] = []
    for point in points:
        row = measure(rig, bare, ceilings, point, vllm)
        if row is None:
            print(line(map(str, point)), "does not fit", flush=True)
            continue
        result.append(row)
        print(row, flush=True)
    return {
        **asdict(ceilings),
        "architecture": name,
        "kv_dtype": dtype_name(rig.kv_dtype),
        "weights": dtype_name(rig.heads.dtype if error is None else FP8),
        "logit_error": None if error is None else asdict(error),
        "vllm": None if vllm is None else {"version": vllm.version, "cascade": vllm.cascade},
        "rows": [asdict(row) for row in result],
    }
