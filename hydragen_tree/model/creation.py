"""Models without numbers, as transformers makes them before it loads their weights."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

_META = torch.device("meta")
_DRAWN = (init.normal_, init.uniform_, init.kaiming_uniform_)  # by layers when they are made


class Undrawn(TorchFunctionMode):
    """Inside, nothing is drawn on the meta device, and positions are counted on the CPU instead.

    Tensors there hold no numbers, yet to draw or to count them torch imports its compiler and
    sympy (NOTES.md). Rotary frequencies are made of positions; transformers makes them anew
    where weights go. Positions that meet tensors without numbers lose theirs.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """What a function of torch gives, or its tensor as it is."""
        named = dict(kwargs or {})
        if function in _DRAWN:
            tensor = args[0] if args else named["tensor"]
            if tensor.is_meta:
                return tensor
        if function is torch.arange and named.get("device") == _META:
            named["device"] = "cpu"
        try:
            return function(*args, **named)
        except RuntimeError:
            tensors = [leaf for leaf in tree_leaves((args, named)) if isinstance(leaf, Tensor)]
            if not any(tensor.is_meta for tensor in tensors):
                raise
            args, named = tree_map_only(Tensor, lambda tensor: tensor.to(_META), (args, named))
            return function(*args, **named)


def without_weights(config: PreTrainedConfig, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """A model of a configuration that takes no memory; its dtype is by default the latter's."""
    asked = {} if dtype is None else {"dtype": dtype}
    with Undrawn(), _META:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, **asked)
    return model
