"""Layers with running states, one token a row: their own code around kernels of ours.

transformers' layers call functions of their module for what touches a state. Each of ours takes the
place of one of the same name, in a copy of the layer's `forward` that nobody else has. It is taken
where it gives on random numbers what the layer's own code gives.
"""

import inspect
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

from torch import Tensor
from transformers.cache_utils import LinearAttentionLayer

from hydragen_kernels.state_steps import Placed, convolution_step, delta_step, mamba_step


class PlacedState(LinearAttentionLayer):  # type: ignore[misc]
    """What a layer takes its state from: its place in the arena, where kernels change it."""

    def __init__(
        self, tensors: tuple[Tensor | None, ...], source: Tensor | None, target: Tensor
    ) -> None:
        super().__init__()
        assert source is not None
        conv, recurrent = (None if x is None else Placed(x, source, target) for x in tensors)
        self.conv_states[0], self.recurrent_states[0] = conv, recurrent
        self.has_previous_state[0] = True

    def update_recurrent_state(self, recurrent_states: None, state_idx: int = 0, **_: Any) -> None:
        """It has been changed where it is."""


def _convolution(
    x: Tensor, state: Placed, weight: Tensor, bias: Tensor | None = None, activation: Any = None
) -> Tensor:
    """transformers' signature: `[rows, channels, 1]`."""
    return convolution_step(x[..., 0], state, weight, bias, activation)[..., None]


def _delta(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    g: Tensor,
    beta: Tensor,
    initial_state: Placed,
    use_qk_l2norm_in_kernel: bool = False,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' signature: all `[rows, 1, heads, ...]`."""
    query, key, value, g, beta = (x[:, 0] for x in (query, key, value, g, beta))
    normed = use_qk_l2norm_in_kernel
    return delta_step(query, key, value, g, beta, initial_state, normed=normed)[:, None], None


def _mamba(
    state: Placed,
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    *,
    dt_bias: Tensor,
    z: Tensor | None = None,
    **_: Any,
) -> Tensor:
    """transformers' signature: what is a head's own is repeated for its numbers."""
    return mamba_step(x, dt[..., 0], a[:, 0, 0], b, c, d[:, 0], dt_bias[:, 0], z, state)


_CONVOLUTION = {"causal_conv1d_update": _convolution}
_RECURRENT = {
    "torch_recurrent_gated_delta_rule": _delta,
    "mamba2_selective_state_update": _mamba,
}


def placed_forward(layer: Any, has_recurrent: bool) -> Callable[..., Any] | None:
    """A layer's own code with our functions in it.

    Args:
        layer: keeps states.
        has_recurrent: more than the inputs of a convolution.

    Returns:
        None where its code calls others.
    """
    plain = inspect.unwrap(type(layer).forward)
    if not isinstance(plain, FunctionType):
        return None
    called = set(plain.__code__.co_names)
    if not called & _CONVOLUTION.keys() or has_recurrent > len(called & _RECURRENT.keys()):
        return None
    own = plain.__globals__ | _CONVOLUTION | _RECURRENT
    changed = FunctionType(
        plain.__code__, own, plain.__name__, plain.__defaults__, plain.__closure__
    )
    changed.__kwdefaults__ = plain.__kwdefaults__
    return MethodType(changed, layer)
