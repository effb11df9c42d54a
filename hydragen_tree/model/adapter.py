"""The adapter to transformers: any causal model that lets its attention be replaced.

The model runs its own code for embeddings, rotary positions, norms and layers; only attention is
ours. A step's tokens are packed into one sequence of batch size 1, with explicit positions, and
the plan says who sees whom.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from hydragen_kernels import ordered_layers
from hydragen_tree.attention.backend import Attend
from hydragen_tree.attention.plan import Plan
from hydragen_tree.attention.tree_attention import TreeAttention
from hydragen_tree.attention.triton_backend import is_interpreting
from hydragen_tree.errors import ModelError
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.compilation import compile_layers
from hydragen_tree.model.fused_layers import fuse_layers
from hydragen_tree.model.fused_rotations import unfuse_rotations
from hydragen_tree.model.latent import LatentLayers
from hydragen_tree.model.layer_kernels import c_kernels, triton_kernels
from hydragen_tree.model.ordered_experts import CPU_FORMS, order_experts
from hydragen_tree.model.ordered_functions import order_functions
from hydragen_tree.model.ordered_layers import forget_tables, order_layers
from hydragen_tree.model.projections import fuse_projections, pack_projections, padding
from hydragen_tree.model.quantising import forget_originals, quantised_layers
from hydragen_tree.model.ranks import ALONE, Ranks
from hydragen_tree.model.recurrence import Recurrence
from hydragen_tree.model.rotary import fix_frequencies
from hydragen_tree.model.states import LayerKinds, RowRuns, Runs
from hydragen_tree.model.step import Memory, Step, attention
from hydragen_tree.model.support import attention_layers, layer_heads, layer_windows

IMPLEMENTATION = "hydragen_tree"


def _no_mask(*_: Any, **__: Any) -> None:
    """The plan takes the place of masks."""


def _fuse(model: PreTrainedModel, batch_invariant: bool, ranks: Ranks) -> None:
    """Replaces a model's layers by those that a GPU likes, in one order of summation if asked."""
    from hydragen_tree.model.experts import group_experts  # all import Triton
    from hydragen_tree.model.joint_layers import join_layers
    from hydragen_tree.model.ordered_gpu import GPU_FORMS, order_gpu_products
    from hydragen_tree.model.routers import fuse_routers

    group_experts(model, in_one_order=batch_invariant)
    fuse_layers(model, triton_kernels())
    fuse_projections(model)
    if batch_invariant:
        order_gpu_products(model)
        order_functions(model, GPU_FORMS)
    else:
        fuse_routers(model)
        join_layers(model, ranks)


def _takes_c_layers(model: PreTrainedModel) -> bool:
    # Interpreted kernels are for the CPU, too, and would share the function that rotates.
    is_plain = model.dtype == torch.float32 and not is_interpreting()
    return is_plain and ordered_layers.why_unavailable() is None


class TreeModel:
    """A causal language model whose attention walks the tree.

    On a GPU products of one input are fused, those of experts are grouped, and what lies between a
    layer's products is fused, too; that also on a CPU in float32, where weights are packed. What
    quantised layers were before, which is kept to compare with, is let go.

    Args:
        model: a transformers model; its attention implementation is replaced.
        backend: attention backend, see `tree_attention`.
        ranks: those that have the model together; it is this one's part.
        has_latent_tails: tails hold latent vectors (`latent`).
        batch_invariant: layers become those of `ordered_layers`, on a GPU those of `ordered_gpu`,
            and attention is `ordered`; what that is worth, `invariance` finds out.

    Attributes:
        batch_invariant: as given.
        is_fused: its layers are those of a GPU.
        is_compiled: whether `compile` has been called.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        backend: str = "auto",
        ranks: Ranks = ALONE,
        *,
        has_latent_tails: bool = False,
        batch_invariant: bool = False,
    ) -> None:
        AttentionInterface.register(IMPLEMENTATION, attention)
        AttentionMaskInterface.register(IMPLEMENTATION, _no_mask)
        model.set_attn_implementation(IMPLEMENTATION)
        model.eval()
        fix_frequencies(model, 1)
        forget_originals(model)
        self._recurrence = Recurrence.of(model, has_kernels=model.device.type == "cuda")
        self._latents = LatentLayers(model, has_latent_tails)
        self.batch_invariant, self._is_packed = batch_invariant, False
        self.is_fused = model.device.type == "cuda" or (batch_invariant and is_interpreting())
        if self.is_fused:
            _fuse(model, batch_invariant, ranks)
        elif batch_invariant:
            unfuse_rotations(model)  # another model of the same code may have them fused
            order_layers(model)
            order_experts(model)
            order_functions(model, CPU_FORMS)
        elif model.device.type == "cpu":
            if _takes_c_layers(model):
                fuse_layers(model, c_kernels())
            if quantised_layers(model):
                fuse_projections(model)
            self._is_packed = pack_projections(model) > 0
        self.is_compiled = False
        self.model = model
        self.backend = "ordered" if batch_invariant else backend
        self.ranks = ranks
        text = model.config.get_text_config(decoder=True)
        self._windows, self._heads = layer_windows(text), layer_heads(text)
        self._places = {layer: place for place, layer in enumerate(attention_layers(text))}
        # A mask with four dimensions is taken as it is; without one, models look at the positions
        # on the host to see whether sequences are packed.
        self._given_mask = torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=model.device)

    @property
    def state_kinds(self) -> Mapping[int, LayerKinds]:
        """What layers with running states keep, by their number."""
        return self._recurrence.kinds

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.model.device)

    def prepare(self, longest: int) -> None:
        """Makes ready for sequences of up to so many tokens: by that longrope's frequencies go."""
        fix_frequencies(self.model, longest)
        forget_tables(self.model)

    def compile(self) -> None:
        """Has the layers compiled; attention stays as it is. Once is enough."""
        if self.is_compiled:
            return
        self.is_compiled = True
        if self.is_fused and self.ranks.joint is None:
            from hydragen_tree.model.joint_layers import part_layers  # imports Triton

            part_layers(self.model)  # what a layer knows of the next one's norm is not compiled
        compile_layers(self.model)

    def attend(self, plan: Plan, backend: str | None = None) -> Attend:
        """Attention over a plan that lies on the host, made ready once for all layers.

        Args:
            plan: which queries meet which slots.
            backend: instead of the model's own.
        """
        return TreeAttention(plan, self.backend if backend is None else backend)

    @torch.inference_mode()
    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        memories: Sequence[Memory],
        keep: Tensor | None,
        cache: KVCache,
        runs: Runs | RowRuns | None = None,
        *,
        are_tails: bool = False,
    ) -> Tensor:
        """Runs packed tokens through the model and stores their keys, values and states.

        Args:
            tokens: `[tokens]` int64.
            positions: `[tokens]` int64, position of each in its own sequence.
            memories: where each arena has them, and what they see there.
            keep: `[kept]` int64, the tokens whose logits are wanted; None: all.
            cache: the arenas.
            runs: which tokens follow each other; a model that keeps no states needs none.
            are_tails: the tokens are of tails, each a row; else of segments.

        Returns:
            Logits `[kept, vocabulary]` in the model's dtype.
        """
        given = self._windows, self._heads, self._places
        with self._recurrence.over(runs, cache.states), self._latents.given(are_tails) as latents:
            step = Step(cache, positions, memories, *given, latents)
            output = self.model(
                input_ids=self._padded(tokens)[None],
                position_ids=self._padded(positions)[None],
                attention_mask=self._given_mask,
                use_cache=False,
                logits_to_keep=0 if keep is None else self._padded(keep),
                tree_step=step,
            )
        step.check_complete()
        logits: Tensor = output.logits[0]
        return logits[: (tokens if keep is None else keep).shape[0]]

    @torch.inference_mode()
    def run_layers(
        self,
        layers: range,
        states: Tensor,
        positions: Tensor,
        memories: Sequence[Memory],
        cache: KVCache,
    ) -> Tensor:
        """Runs some of the layers over packed tokens, and stores their keys and values.

        Args:
            layers: numbers of the layers.
            states: `[tokens, width]` what the first of them reads, see `embed`.
            positions: `[tokens]` int64, position of each in its own sequence.
            memories: where each arena has them, and what they see there.
            cache: the arenas.

        Returns:
            `[tokens, width]` what the layer behind reads.

        Raises:
            ModelError: the model's layers cannot be run one by one.
        """
        owner, stack = self._stack()
        given = self._windows, self._heads, self._places
        step = Step(cache, positions, memories, *given)
        out, places = self._padded(states)[None], self._padded(positions)[None]
        angles = owner.rotary_emb(out, position_ids=places)
        for number in layers:
            out = stack[number](
                out,
                attention_mask=self._given_mask,
                position_ids=places,
                position_embeddings=angles,
                use_cache=False,
                tree_step=step,
            )
        return out[0, : positions.shape[0]]

    @torch.inference_mode()
    def embed(self, tokens: Tensor) -> Tensor:
        """What the first layer reads: `[tokens]` int64 to `[tokens, width]`."""
        states: Tensor = self.model.get_input_embeddings()(tokens)
        return states

    @torch.inference_mode()
    def head(self, states: Tensor) -> Tensor:
        """Logits of what comes out of the last layer: `[tokens, width]` to `[tokens, vocabulary]`.

        Raises:
            ModelError: see `run_layers`.
        """
        logits: Tensor = self.model.get_output_embeddings()(self._stack()[0].norm(states))
        return logits

    def _stack(self) -> tuple[Any, nn.ModuleList]:
        """The layers, and what has them with the rotation before them and the norm behind."""
        owner = self.model.get_decoder()

        if not all(hasattr(owner, name) for name in ("layers", "norm", "rotary_emb")):
            raise ModelError(
                f"{type(owner).__name__}: its layers cannot be run one by one; choose another model"
            )
        return owner, owner.layers

    def _padded(self, x: Tensor) -> Tensor:
        """With zeros behind, where products like numbers of rows that they have met before."""
        extra = padding(x.shape[0]) if self._is_packed else 0
        return functional.pad(x, (*(0, 0) * (x.ndim - 1), 0, extra)) if extra else x
