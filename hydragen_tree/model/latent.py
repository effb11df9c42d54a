"""Latent attention (MLA): segments hold keys and values, tails the vectors that those are made of.

Of a token a layer keeps a vector c of `rank` numbers and a rotated key r, which all heads share.
A head's key is [K c, r] and its value V c, with matrices K and V of its own. So for a query [a, b]

    [a, b] . [K c, r] = [K^T a, b] . [c, r]         sum_i w_i V c_i = V sum_i w_i c_i

and what is met may be either. A segment's keys are made once and read by many rows, in products
that have a third of the work or less in that form. A tail's are read by one row, so that bytes
count: [c, r] has not many more of them than one head's key and value.

Source: DeepSeek-V2, arXiv 2405.04434; both forms side by side: TyphoonMLA, arXiv 2509.21081.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from hydragen_tree.errors import ModelError
from hydragen_tree.model.loading import ModelSource

_NAME = "kv_b_proj"  # what makes keys and values, in all of transformers' models


def with_latent_tails(source: ModelSource, backend: str) -> ModelSource:
    """A model whose tails hold latent vectors, if it has some and attention takes them.

    Not in one order of summation, where a tail goes on with its segments' sums, nor in 8 bits, nor
    where layers see the last tokens only, which their tails do not know.

    Args:
        source: the model.
        backend: of attention, by name.
    """
    if backend == "ordered" or source.kv_dtype != source.dtype or source.heads.is_windowed:
        return source
    width = tail_latent_dim(source.config)
    return replace(source, shape=replace(source.shape, latent_dim=width))


def tail_latent_dim(config: PreTrainedConfig) -> int:
    """Numbers of a token's latent vector and rotated key together; 0: there are none."""
    text = config.get_text_config(decoder=True)
    rank = getattr(text, "kv_lora_rank", None)
    return int(rank) + int(text.qk_rope_head_dim) if rank else 0


@dataclass
class _Pass:
    """What goes through the model just now."""

    is_tails: bool = False


class LatentLayers:
    """The layers of a model that make keys and values of latent vectors, replaced in place.

    Args:
        model: the model.
        are_used: tails are to hold latent vectors; else nothing is replaced.

    Raises:
        ModelError: such layers do more than multiply.
    """

    def __init__(self, model: PreTrainedModel, are_used: bool) -> None:
        self._pass, self._are_used = _Pass(), are_used
        for module in list(model.modules()) if are_used else []:
            if hasattr(module, _NAME):
                layer = getattr(module, _NAME)
                if isinstance(layer, Expansion):  # adapted before, and may be used so again
                    self._pass = layer.now
                    continue
                matrix = _matrix(layer, int(module.kv_lora_rank), model)
                dims = int(module.qk_nope_head_dim), int(module.v_head_dim)
                setattr(module, _NAME, Expansion(layer, matrix, dims, self._pass))

    @contextmanager
    def given(self, are_tails: bool) -> Iterator[bool]:
        """While tokens of tails, or of segments, go through: whether their vectors are kept."""
        self._pass.is_tails = are_tails and self._are_used
        try:
            yield self._pass.is_tails
        finally:
            self._pass.is_tails = False


class Absorbed(NamedTuple):
    """What attention over latent vectors takes.

    Attributes:
        vectors: `[tokens, latent_dim]`, to be stored.
        queries: `[tokens, q_heads, latent_dim]`, to meet such vectors.
        up: `[q_heads, rank, value_dim]`, a head's values out of such vectors.
    """

    vectors: Tensor
    queries: Tensor
    up: Tensor


class Expansion(nn.Module):
    """Makes keys and values of latent vectors; of those of tails only notes them.

    Args:
        layer: the linear layer in whose place it stands.
        matrix: `[q_heads * (key_dim + value_dim), rank]`, what that multiplies with.
        dims: numbers of a head's key that it makes, the rotated ones are behind them; and of a
            value.
        now: what goes through the model, as all who have adapted it say.
    """

    def __init__(self, layer: nn.Module, matrix: Tensor, dims: tuple[int, int], now: _Pass) -> None:
        super().__init__()
        self.layer, self._key_dim, self.now = layer, dims[0], now
        by_head = matrix.unflatten(0, (-1, sum(dims)))
        self._down, self._up = by_head[:, : dims[0]], by_head[:, dims[0] :].mT
        self._width = len(matrix)
        self._noted: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """`[..., rank]` to `[..., q_heads * (key_dim + value_dim)]`; of tails, to zeros."""
        if self.now.is_tails:
            self._noted = x
            return x.new_zeros(()).expand(*x.shape[:-1], self._width)
        out: Tensor = self.layer(x)
        return out

    def absorbed(self, queries: Tensor, keys: Tensor) -> Absorbed:
        """What went through last, and its queries in the form that meets such vectors.

        Args:
            queries: `[q_heads, tokens, head_dim]`.
            keys: `[tokens, head_dim]` of any head, of which only the rotated numbers are right.
        """
        assert self._noted is not None
        noted, self._noted = self._noted.flatten(0, -2)[: len(keys)], None
        plain, rotated = queries.tensor_split((self._key_dim,), -1)
        asking = torch.cat((torch.bmm(plain, self._down), rotated), -1).transpose(0, 1)
        return Absorbed(torch.cat((noted, keys[:, self._key_dim :]), -1), asking, self._up)


def _matrix(layer: nn.Module, rank: int, model: PreTrainedModel) -> Tensor:
    """`[outputs, rank]`, what a layer multiplies with, whatever it holds of it."""
    if getattr(layer, "bias", None) is not None:
        raise ModelError(f"{_NAME} has a bias, and is no product alone; choose another model")
    if type(layer) is nn.Linear:
        return layer.weight.detach()
    with torch.no_grad():
        out: Tensor = layer(torch.eye(rank, dtype=model.dtype, device=model.device))
    return out.mT
