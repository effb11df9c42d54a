"""Tree attention, one entry for prefill and decode: packed queries over shared segments and tails.

It computes what `hydragen_kernels.reference.attend` defines, by one of the backends of `table`.

Source: Hydragen, arXiv 2402.05099.
"""

import math

import torch
from torch import Tensor

from hydragen_kernels.inputs import FLOATS, FP8
from hydragen_tree.attention.backend import Attend
from hydragen_tree.attention.heads import Heads
from hydragen_tree.attention.latent_tails import LatentTails
from hydragen_tree.attention.plan import Plan
from hydragen_tree.attention.table import BACKENDS, backend, choose
from hydragen_tree.attention.windows import Window, WindowView
from hydragen_tree.errors import InputError, PlanError


def tree_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    plan: Plan,
    *,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    window: Window | None = None,
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
        window: which tokens of its sequence, the keys that the plan gives it, a query sees; None:
            all of them.
        backend: one of `hydragen_tree.attention.table.BACKENDS`; `auto` is the first that can.

    Returns:
        `[queries, q_heads, head_dim]` in the queries' dtype. A query that meets no key gives 0.

    Raises:
        PlanError: the plan or the tensors do not fit; the message names the field.
        InputError: the backend does not.
    """
    # all of it here, where plans and tensors come from anywhere; a run's are our own
    _check(queries, keys, values, plan)
    _check_memory(queries, keys, values)
    plan.check(keys.shape[1])
    scale = queries.shape[-1] ** -0.5 if scale is None else scale
    _check_scores(queries, scale, softcap, sinks)
    attend = TreeAttention(plan, backend)
    view = None
    if window is not None:
        view = window.view(torch.from_numpy(plan.positions()).to(queries.device))
    return attend(0, queries, keys, values, scale=scale, softcap=softcap, sinks=sinks, view=view)


class TreeAttention:
    """`tree_attention` of one plan, for all layers of a model.

    The plan is made ready once, by the first layer that asks: only with its queries and keys in
    hand is it known what computes them. Layers with other heads (Gemma 3n has two
    sizes) get a form of their own.

    Args:
        plan: which queries meet which slots.
        backend: one of `BACKENDS`.

    Raises:
        InputError: there is no such backend.
    """

    def __init__(self, plan: Plan, backend: str = "auto") -> None:
        if backend not in BACKENDS:
            raise InputError(
                f"expected one of {', '.join(BACKENDS)}", setting="attention", value=backend
            )
        self._plan = plan
        self._backend = backend
        self._prepared: dict[object, Attend] = {}

    def __call__(
        self,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        scale: float,
        softcap: float | None,
        sinks: Tensor | None,
        view: WindowView | None = None,
        latent: LatentTails | None = None,
    ) -> Tensor:
        """As of `Attend`.

        Raises:
            InputError: shapes, dtypes or the backend do not fit.
        """
        is_capped, is_windowed = softcap is not None, view is not None
        shapes = queries.shape, keys.shape, values.shape
        latent_dim = 0 if latent is None else latent.arena.shape[-1]
        kind = (*shapes, queries.dtype, keys.dtype, is_capped, is_windowed, latent_dim)
        attend = self._prepared.get(kind)
        if attend is None:
            rest = is_capped, is_windowed, latent_dim
            attend = self._prepare(queries, keys, values, *rest)
            self._prepared[kind] = attend
        return attend(
            *(layer, queries, keys, values),
            scale=scale,
            softcap=softcap,
            sinks=sinks,
            view=view,
            latent=latent,
        )

    def _prepare(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        is_capped: bool,
        is_windowed: bool,
        latent_dim: int,
    ) -> Attend:
        _check(queries, keys, values, self._plan)
        heads = Heads(
            queries.shape[1],
            keys.shape[0],
            queries.shape[2],
            queries.dtype,
            queries.device,
            keys.dtype,
            is_capped=is_capped,
            is_windowed=is_windowed,
            latent_dim=latent_dim,
        )
        return backend(choose(self._backend, heads)).prepare(self._plan, heads).attend


def _check(queries: Tensor, keys: Tensor, values: Tensor, plan: Plan) -> None:
    """Makes sure that shapes fit together; of a model's layers once for every kind of heads."""
    if queries.ndim != 3 or queries.shape[0] != plan.n_queries or 0 in queries.shape[1:]:
        raise PlanError(
            f"queries: expected [{plan.n_queries}, q_heads, head_dim], got {list(queries.shape)}"
        )
    if keys.ndim != 3 or keys.shape != values.shape or keys.shape[-1] != queries.shape[-1]:
        raise PlanError(
            f"keys, values: expected two of [kv_heads, slots, {queries.shape[-1]}], "
            f"got {list(keys.shape)} and {list(values.shape)}"
        )
    if keys.shape[0] < 1 or queries.shape[1] % keys.shape[0]:
        raise PlanError(
            f"{queries.shape[1]} query heads are not a multiple of {keys.shape[0]} key-value heads"
        )


def _check_memory(queries: Tensor, keys: Tensor, values: Tensor) -> None:
    """Makes sure that numbers lie where, and as what, they are read."""
    if queries.dtype not in FLOATS:
        raise PlanError(f"queries: expected fp32, fp16 or bf16, got {queries.dtype}")
    for name, arena in (("keys", keys), ("values", values)):
        if arena.dtype not in (queries.dtype, FP8) or arena.dtype != keys.dtype:
            raise PlanError(
                f"{name}: expected {queries.dtype} as the queries, or both of {FP8}, "
                f"got {arena.dtype}"
            )
        if arena.device != queries.device:
            raise PlanError(f"{name}: expected them on {queries.device}, got {arena.device}")
    for name, tensor in (("queries", queries), ("keys", keys), ("values", values)):
        if tensor.layout != torch.strided or tensor.is_meta:
            raise PlanError(f"{name}: expected plain memory, got {tensor.layout}, {tensor.device}")


def _check_scores(
    queries: Tensor, scale: float, softcap: float | None, sinks: Tensor | None
) -> None:
    """Makes sure that what changes the scores is fit for it."""
    for name, number in (("scale", scale), ("softcap", softcap)):
        if number is not None and not 0.0 < number < math.inf:
            raise PlanError(f"{name}: expected a positive number, got {number}")
    if sinks is None:
        return
    fits = sinks.shape == queries.shape[1:2] and sinks.is_floating_point()
    if not fits or sinks.device != queries.device:
        raise PlanError(
            f"sinks: expected floats [{queries.shape[1]}] on {queries.device}, "
            f"got {sinks.dtype} {list(sinks.shape)} on {sinks.device}"
        )
