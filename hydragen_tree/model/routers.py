"""Routers of experts on a GPU: from logits to a token's experts and their shares in one launch.

transformers' routers take five to nine: a soft-max or sigmoids, the greatest and their sorting, a
sum, a quotient, casts. The product with a router's weights stays torch's. Routers differ in what
they make of logits, where they widen numbers, and what they return. So a router is replaced where
on random numbers the same product gives its logits, bit for bit, and the kernel the experts and
shares that its own code gives; it stays as it is elsewhere.
"""

import inspect
from collections.abc import Callable
from itertools import product as every
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from hydragen_kernels.inputs import FLOATS
from hydragen_kernels.layer_forms import Scores
from hydragen_kernels.routing import Routes, route
from hydragen_tree.imports import hidden_from_compiler
from hydragen_tree.model.alike import is_same, numbers

_TRIED = 16  # tokens
_BIAS = "e_score_correction_bias"  # of a router, or given to it
_SCALES = ("routed_scaling_factor", "router_scaling_factor")
_Result = tuple[Tensor, ...]


class _Form(NamedTuple):
    """What a router computes.

    Attributes:
        product: its logits, of the router and `[..., width]`.
        scores: what is made of them.
        is_normalised: whether shares sum up to one before they are scaled.
        scale: factor of the shares.
        dtype: of the shares.
        choices: experts a token.
        is_flat: whether more than one dimension of tokens becomes one.
        returned: names of what is returned, in its order.
    """

    product: Callable[[Any, Tensor], Tensor]
    scores: Scores
    is_normalised: bool
    scale: float
    dtype: torch.dtype
    choices: int
    is_flat: bool
    returned: tuple[str, ...]

    def routes(self, logits: Tensor, bias: Tensor | None) -> Routes:
        """Experts and shares."""
        return route(
            logits,
            self.choices,
            scores=self.scores,
            is_normalised=self.is_normalised,
            dtype=self.dtype,
            scale=self.scale,
            bias=bias,
        )


@torch.inference_mode()
def fuse_routers(model: PreTrainedModel) -> int:
    """Replaces in place what routers compute, where the kernel computes it alike.

    Args:
        model: where Triton's kernels run.

    Returns:
        How many routers were.
    """
    like: Tensor = model.get_input_embeddings().weight
    routers = [module for module in model.modules() if "Router" in type(module).__name__]
    return sum(_fuse(router, like) for router in routers)


def _fuse(router: Any, like: Tensor) -> bool:
    form = _form_of(router, like)
    if form is None:
        return False
    if form.product is _wide:  # once instead of in every step
        router.weight = nn.Parameter(router.weight.float(), requires_grad=False)
    own = router.forward

    @hidden_from_compiler
    def forward(x: Tensor, bias: Tensor | None = None) -> Any:
        if x.ndim != 2 and not form.is_flat:
            return own(x) if bias is None else own(x, bias)
        logits = form.product(router, x.reshape(-1, x.shape[-1]))
        routes = form.routes(logits, getattr(router, _BIAS, bias))
        found = {"logits": logits, **routes._asdict()}
        return tuple(found[name] for name in form.returned)

    router.forward = forward
    return True


def _plain(router: Any, x: Tensor) -> Tensor:
    bias = getattr(router, "bias", None)
    return functional.linear(x.to(router.weight.dtype), router.weight, bias)


def _wide(router: Any, x: Tensor) -> Tensor:
    bias = getattr(router, "bias", None)
    wide_bias = None if bias is None else bias.float()
    return functional.linear(x.float(), router.weight.float(), wide_bias)


def _widened(router: Any, x: Tensor) -> Tensor:
    return _plain(router, x).float()


def _form_of(router: Any, like: Tensor) -> _Form | None:
    """What a router computes, if it is one of the known forms."""
    weight = getattr(router, "weight", None)
    if not isinstance(weight, nn.Parameter) or weight.ndim != 2 or weight.dtype not in FLOATS:
        return None
    taken = [*inspect.signature(router.forward).parameters][1:]
    if taken not in ([], [_BIAS]) or _has_groups(router):
        return None
    experts, width = weight.shape
    given = [numbers(like, experts).float()] if taken else []
    x = numbers(like, 2 * _TRIED, width)
    x = torch.cat([x[:_TRIED], 4 * x[_TRIED:]])  # large numbers show what is clamped
    own = _result(router, x, given)
    if own is None:
        return None
    bias = given[0] if taken else getattr(router, _BIAS, None)
    for product in (_plain, _wide, _widened):
        logits = product(router, x)
        returned = _names(own, logits)
        if returned is None:
            continue
        expected = dict(zip(returned, own, strict=True))
        routes = Routes(expected["chosen"], expected["shares"])
        is_flat = _is_flat(router, x, given, own)
        for scores, is_normalised, scale in every(_scores(bias), (True, False), _scales(router)):
            form = _Form(
                product,
                scores,
                is_normalised,
                scale,
                routes.shares.dtype,
                routes.chosen.shape[1],
                is_flat,
                returned,
            )
            if _is_alike(form.routes(logits, bias), routes, experts):
                return form
    return None


def _has_groups(router: Any) -> bool:
    """Whether a token's experts are of some groups only, which a few random tokens may not show."""
    groups = getattr(router, "num_group", None) or getattr(router, "n_group", None)
    return (groups or 1) != (getattr(router, "topk_group", None) or 1)


def _result(router: Any, x: Tensor, given: list[Tensor]) -> _Result | None:
    """What a router returns, if that is a few tensors."""
    try:
        own = router(x, *given)
    except (TypeError, ValueError, RuntimeError, IndexError):  # it is called in another way
        return None
    is_known = isinstance(own, tuple) and all(isinstance(one, Tensor) for one in own)
    return own if is_known else None


def _is_flat(router: Any, x: Tensor, given: list[Tensor], own: _Result) -> bool:
    """Whether a batch of one gives what its tokens alone give."""
    whole = _result(router, x[None], given)
    return whole is not None and [one.shape for one in whole] == [one.shape for one in own]


def _names(own: _Result, logits: Tensor) -> tuple[str, ...] | None:
    """What each of the tensors returned is, if the logits among them are these."""

    def name_of(one: Tensor) -> str:
        if not one.is_floating_point():
            return "chosen"
        return "logits" if one.dtype == logits.dtype and torch.equal(one, logits) else "shares"

    names = tuple(map(name_of, own))
    if sorted(names) not in (["chosen", "logits", "shares"], ["chosen", "shares"]):
        return None
    chosen, shares = (own[names.index(name)] for name in ("chosen", "shares"))
    tokens, experts = logits.shape
    fits = chosen.shape == shares.shape == (tokens, chosen.shape[-1])
    return names if fits and chosen.dtype == torch.int64 and chosen.shape[1] <= experts else None


def _scores(bias: Tensor | None) -> tuple[Scores, ...]:
    return tuple(Scores) if bias is None else (Scores.SIGMOID,)


def _scales(router: Any) -> set[float]:
    return {1.0, *(float(getattr(router, name)) for name in _SCALES if hasattr(router, name))}


def _is_alike(found: Routes, expected: Routes, experts: int) -> bool:
    """Whether tokens have the same shares, of the same experts where torch chose like the kernel.

    Of equal ones torch may choose any: then only the shares are compared.
    """
    if not is_same(*(routes.shares.sort(-1).values for routes in (found, expected))):
        return False
    agree = (found.chosen.sort(-1).values == expected.chosen.sort(-1).values).all(-1)
    spread = [
        torch.zeros(len(agree), experts, dtype=routes.shares.dtype, device=agree.device).scatter(
            1, routes.chosen, routes.shares
        )[agree]
        for routes in (found, expected)
    ]
    return 2 * int(agree.sum()) >= len(agree) and is_same(*spread)
