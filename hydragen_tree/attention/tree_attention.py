"""The recursive pass, in its optimised forms: one entry for prefill and decode.

`tree_attention` computes what `hydragen_kernels.reference.attend` defines. The torch form walks the
plan's levels from the roots down; for every segment it computes the attention of all queries below
it in one product and merges it into those queries' running partial. Tails come last.

Source: Hydragen, arXiv 2402.05099; merging by log-sum-exp as in its equation 5.
"""

from importlib.util import find_spec

import torch
from torch import Tensor

from hydragen_kernels import native, reference
from hydragen_kernels.inputs import FP8, movable
from hydragen_tree.attention.plan import Plan, Tails
from hydragen_tree.attention.torch_tails import attend_tails
from hydragen_tree.errors import InputError

BACKENDS = ("auto", "triton", "flash", "native", "torch", "reference")

_FLASH_CPU_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_SCORES_CHUNK = 1 << 24  # scores of one product of the unfused form, in elements


def tree_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    plan: Plan,
    *,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Attention of packed queries over a tree of shared segments and their own tails. Exact.

    Args:
        queries: `[queries, q_heads, head_dim]`, rows in depth-first order; fp32, fp16, bf16.
        keys: `[kv_heads, slots, head_dim]`, one layer's arena; `q_heads` a multiple of `kv_heads`;
            in the queries' dtype, or in float8_e4m3fn, which is taken as it is.
        values: like `keys`.
        plan: which queries meet which slots.
        scale: factor on the scores; `head_dim ** -0.5` by default.
        softcap: scores become `softcap * tanh(score / softcap)` (Gemma 2).
        sinks: `[q_heads]`, one more score per head that has no value (GPT-OSS).
        backend: `auto`, `triton`, `flash` (CUDA, 16-bit types only, no soft-capping), `native`
            (a CPU, float32; a prefill step as `torch`), `torch` or `reference`.

    Returns:
        `[queries, q_heads, head_dim]` in the queries' dtype. A query that meets no key gives 0.

    Raises:
        InputError: shapes, dtypes or the backend do not fit.
    """
    _check(queries, keys, values, plan, backend)
    scale = queries.shape[-1] ** -0.5 if scale is None else scale
    backend = resolve_backend(backend, queries.device, keys.dtype)
    if backend in ("triton", "flash"):
        from hydragen_tree.attention.fused import Heads, fuse

        heads = Heads(
            queries.shape[1],
            keys.shape[0],
            queries.shape[2],
            queries.dtype,
            queries.device,
            keys.dtype,
        )
        return fuse(plan, heads, backend == "flash").attend(
            queries, keys, values, scale=scale, softcap=softcap, sinks=sinks
        )
    if backend == "reference":
        result = _recursive(queries, keys, values, plan, scale, softcap)
    elif backend == "native" and softcap is None and native.fits(queries, keys, values, plan.items):
        result = _native(queries, keys, values, plan, scale)
    else:
        result = _levels(queries, keys, values, plan, scale, softcap)
    out = result.out
    if sinks is not None:  # merging with (0, sink) only rescales
        out = out * torch.sigmoid(result.lse - sinks.to(result.lse.dtype))[..., None]
    return out.to(queries.dtype)


def resolve_backend(backend: str, device: torch.device, kv_dtype: torch.dtype | None = None) -> str:
    """What `auto` means: Triton's kernels on a CUDA device, ours in C on a CPU, torch without them.

    Flash attention is never chosen on a GPU: it was slower than our kernel wherever both were
    measured (BENCHMARKS.md, the segment kernel).

    Args:
        backend: as asked for.
        device: where attention runs.
        kv_dtype: of keys and values, if known.

    Raises:
        InputError: the backend that is asked for cannot do it.
    """
    if backend == "flash" and kv_dtype == FP8:
        raise InputError(
            "reads no fp8 keys and values; use triton or torch", setting="attention", value=backend
        )
    if backend == "native":
        if device.type != "cpu":
            raise InputError(
                f"computes on a CPU, not on {device}; use auto", setting="attention", value=backend
            )
        if missing := _why_not_native(kv_dtype):
            raise InputError(f"{missing}; use auto or torch", setting="attention", value=backend)
    if backend != "auto":
        return backend
    if device.type == "cpu":
        return "torch" if _why_not_native(kv_dtype) else "native"
    return "triton" if device.type == "cuda" and find_spec("triton") else "torch"


def _why_not_native(kv_dtype: torch.dtype | None) -> str | None:
    """Why a CPU's attention cannot be the C form; None if it can."""
    if kv_dtype not in (None, torch.float32):
        return f"reads keys and values in float32, not in {str(kv_dtype).removeprefix('torch.')}"
    return native.why_unavailable()


def _check(queries: Tensor, keys: Tensor, values: Tensor, plan: Plan, backend: str) -> None:
    if backend not in BACKENDS:
        raise InputError(f"attention backend {backend!r}: expected one of {', '.join(BACKENDS)}")
    if queries.ndim != 3 or queries.shape[0] != plan.n_queries:
        raise InputError(
            f"queries: expected [{plan.n_queries}, q_heads, head_dim], got {list(queries.shape)}"
        )
    if keys.ndim != 3 or keys.shape != values.shape or keys.shape[-1] != queries.shape[-1]:
        raise InputError(
            f"keys, values: expected two of [kv_heads, slots, {queries.shape[-1]}], "
            f"got {list(keys.shape)} and {list(values.shape)}"
        )
    if queries.shape[1] % keys.shape[0]:
        raise InputError(
            f"{queries.shape[1]} query heads are not a multiple of {keys.shape[0]} key-value heads"
        )


def _recursive(
    queries: Tensor, keys: Tensor, values: Tensor, plan: Plan, scale: float, softcap: float | None
) -> reference.Partial:
    """The definition itself, tails as one more segment a row."""
    result = reference.empty(queries)
    for node in plan.nodes():
        rows = slice(node.query_start, node.query_stop)
        part = reference.attend(node, queries, keys, values, scale=scale, softcap=softcap)
        merged = reference.merge(reference.Partial(result.out[rows], result.lse[rows]), part)
        result.out[rows], result.lse[rows] = merged
    if plan.tails is not None:
        for row, slots in enumerate(_tail_slots(plan.tails)):
            own_keys, own_values = (
                movable(arena)[:, slots].view(arena.dtype) for arena in (keys, values)
            )
            own = reference.partial(
                queries[row : row + 1],
                own_keys,
                own_values,
                scale=scale,
                softcap=softcap,
            )
            before = reference.Partial(result.out[row : row + 1], result.lse[row : row + 1])
            result.out[row : row + 1], result.lse[row : row + 1] = reference.merge(before, own)
    return result


def _tail_slots(tails: Tails) -> list[Tensor]:
    """The slots of each row's tail, in order."""
    offsets = torch.arange(tails.page_tokens)
    result = []
    for pages, length in zip(tails.pages, tails.lengths.tolist(), strict=True):
        first = torch.from_numpy(pages.clip(min=0)).long() * tails.page_tokens
        result.append((first[:, None] + offsets).flatten()[:length])
    return result


def _native(
    queries: Tensor, keys: Tensor, values: Tensor, plan: Plan, scale: float
) -> reference.Partial:
    """A decode step in one call."""
    tails = plan.tails
    own = (None, None, 1) if tails is None else (tails.pages, tails.lengths, tails.page_tokens)
    part = native.decode_attention(queries, keys, values, plan.items, *own, scale=scale)
    return reference.Partial(*part)


def _levels(
    queries: Tensor, keys: Tensor, values: Tensor, plan: Plan, scale: float, softcap: float | None
) -> reference.Partial:
    """Level by level from the roots, then the tails."""
    out = torch.zeros(queries.shape, dtype=torch.float32, device=queries.device)
    lse = torch.full(queries.shape[:2], -torch.inf, dtype=torch.float32, device=queries.device)
    for first, count, slot, n_slots, causal, level in plan.items.tolist():
        rows, own = slice(first, first + count), slice(slot, slot + n_slots)
        part = _segment(queries[rows], keys[:, own], values[:, own], scale, softcap, bool(causal))
        _merge_into(out[rows], lse[rows], *part, first=level == 0)
    if plan.tails is not None:
        part = attend_tails(queries, keys, values, plan.tails, scale=scale, softcap=softcap)
        _merge_into(out, lse, *part, first=not len(plan.items))
    return reference.Partial(out, lse)


def _merge_into(
    out: Tensor, lse: Tensor, part_out: Tensor, part_lse: Tensor, *, first: bool
) -> None:
    """Merges a partial into a running one, in place; `first` says that nothing was there before."""
    if first:
        out.copy_(part_out)
        lse.copy_(part_lse)
        return
    weight = torch.sigmoid(part_lse - lse).nan_to_num_(0.0)  # -inf - -inf: both are empty
    out.lerp_(part_out.to(out.dtype), weight[..., None])
    lse.copy_(torch.logaddexp(lse, part_lse))


def _segment(
    queries: Tensor, keys: Tensor, values: Tensor, scale: float, softcap: float | None, causal: bool
) -> tuple[Tensor, Tensor]:
    """Attention of `[rows, q_heads, head_dim]` over one segment `[kv_heads, tokens, head_dim]`."""
    rows, q_heads, head_dim = queries.shape
    kv_heads = keys.shape[0]
    group = q_heads // kv_heads
    if queries.device.type == "cpu" and softcap is None and queries.dtype in _FLASH_CPU_DTYPES:
        if causal:
            stacked = queries.transpose(0, 1)[None]
        else:  # (row x group) queries against one kv head: one matrix-matrix product
            stacked = (
                queries.view(rows, kv_heads, group, head_dim).transpose(0, 1).flatten(1, 2)[None]
            )
        shared = [arena.to(queries.dtype)[None] for arena in (keys, values)]
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            stacked, *shared, 0.0, causal, scale=scale
        )
        if causal:
            return out[0].transpose(0, 1), lse[0].transpose(0, 1)
        out = out[0].unflatten(1, (rows, group)).transpose(0, 1).flatten(1, 2)
        return out, lse[0].unflatten(1, (rows, group)).transpose(0, 1).flatten(1, 2)
    step = rows if causal else max(1, _SCORES_CHUNK // (q_heads * keys.shape[1]))
    parts = [
        _unfused(queries[at : at + step], keys, values, scale, softcap, causal)
        for at in range(0, rows, step)
    ]
    return torch.cat([out for out, _ in parts]), torch.cat([lse for _, lse in parts])


def _unfused(
    queries: Tensor, keys: Tensor, values: Tensor, scale: float, softcap: float | None, causal: bool
) -> tuple[Tensor, Tensor]:
    """Two products and a softmax in fp32, where no fused form applies."""
    rows, q_heads, head_dim = queries.shape
    kv_heads, tokens, _ = keys.shape
    stacked = queries.view(rows, kv_heads, -1, head_dim).transpose(0, 1).flatten(1, 2).float()
    scores = torch.matmul(stacked, keys.float().mT) * scale  # [kv_heads, rows * group, tokens]
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if causal:
        hidden = torch.ones(rows, tokens, dtype=torch.bool, device=queries.device).triu_(1)
        scores.masked_fill_(hidden.repeat_interleave(q_heads // kv_heads, 0), -torch.inf)
    lse = torch.logsumexp(scores, -1)
    out = torch.matmul(torch.exp(scores - lse[..., None]), values.float())
    out = out.unflatten(1, (rows, -1)).transpose(0, 1).flatten(1, 2)
    return out, lse.unflatten(1, (rows, -1)).transpose(0, 1).flatten(1, 2)
