"""The sampler's own loop on random weights, without a tokenizer, for benchmarks to take apart."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hydragen_bench.timing import bench_dtype, relative_error
from hydragen_kernels.inputs import FP8
from hydragen_tree.attention.heads import Heads
from hydragen_tree.branch.budget import free_memory_bytes, padded_rows
from hydragen_tree.branch.decoder import Decoder
from hydragen_tree.branch.device_stepper import DeviceStepper
from hydragen_tree.branch.host_stepper import decode_tokens
from hydragen_tree.branch.prefill import Prefill
from hydragen_tree.branch.stepper import Waiting
from hydragen_tree.errors import CapacityError, HydragenError
from hydragen_tree.model.adapter import TreeModel
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.expert_layers import expert_layers
from hydragen_tree.model.states import StatePlaces, States
from hydragen_tree.model.step import Memory
from hydragen_tree.model.support import layer_windows
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.assembly import assemble
from hydragen_tree.sample.loop import Loop
from hydragen_tree.sample.records import RunStats, SampleRecords
from hydragen_tree.sample.shard import sample_ranges
from hydragen_tree.sample.text import Detokenizer
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.shape import KVShape
from hydragen_tree.trie.costs import CUDA
from hydragen_tree.trie.trie import Trie

PAGE_TOKENS = 64
_PREFILL_TOKENS = 8192
SPARE_BYTES = 4 << 30  # for activations and partials
_CHECKED_ROWS = 16
# Where experts are chosen, a last bit sends tokens of random weights to others; in a mistake's way
# stands that logits are off by so many times what a last bit of the embeddings does to plain
# torch's, and by no more than so much.
_LAST_BITS, _MOST_OFF = 2.0, 0.4
# Of logits after all layers, against plain torch on the same cache, with keys and values in 16 bits
# (in bf16 they were 4 to 5 % apart after 40 layers; a mistake makes it 100) and in 8: there the
# step's own, a hair apart in the two, may round to neighbours an eighth apart.
_TOLERANCE, _FP8_TOLERANCE = 0.08, 0.15
# With linear layers that round their inputs to 8 bits a hair before each of them is a sixteenth
# behind it for some numbers, in every layer. How far that carries depends on the weights: it may be
# this share of how far 8 bits themselves move the logits. A step was at half of it, and bf16's
# rounding of the embedding alone at three quarters in some models (NOTES.md); a mistake gives more
# than all of it.
_FP8_WEIGHTS_SHARE = 0.75


class NoText:
    """Stands in for a tokenizer: random weights say nothing."""

    def decode(self, _: list[int], **__: Any) -> str:
        """The same for all tokens: what follows a prompt adds nothing to it."""
        return " "


class WithoutAttention(TreeModel):
    """The model with its attention left out; keys and values are still stored."""

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        memories: Sequence[Memory],
        *others: Any,
        **named: Any,
    ) -> Tensor:
        """As `TreeModel.forward`; every query is its own answer."""
        own = [Memory(one.slots, lambda layer, queries, *_, **__: queries) for one in memories]
        return super().forward(tokens, positions, own, *others, **named)


class Rig:
    """A model, with what a run of it needs.

    Args:
        model: the adapted model.
        shape: sizes of its keys and values.
        vocabulary: tokens it knows.
        kv_dtype: of keys and values; None: like the rest.
        logit_error: how far 8 bits move its logits, relative; None: its weights are as they were.
    """

    def __init__(
        self,
        model: TreeModel,
        shape: KVShape,
        vocabulary: int,
        kv_dtype: torch.dtype | None = None,
        logit_error: float | None = None,
    ) -> None:
        dtype = bench_dtype()
        self.kv_dtype = kv_dtype or dtype
        self.logit_error = logit_error
        self.model, self.vocabulary = model, vocabulary
        self.shape = replace(shape, itemsize=self.kv_dtype.itemsize)
        config = model.model.config
        self.windows = layer_windows(config)
        self.heads = Heads.of(
            *(shape, dtype, model.device, kv_dtype),
            is_capped=getattr(config, "attn_logit_softcapping", None) is not None,
            is_windowed=any(self.windows),
        )
        if model.backend == "ordered":
            self.heads = replace(self.heads, is_ordered=True)

    @property
    def _tolerance(self) -> float:
        if self.logit_error is not None:
            return _FP8_WEIGHTS_SHARE * self.logit_error
        return _FP8_TOLERANCE if self.kv_dtype == FP8 else _TOLERANCE

    def cache(self, n_tokens: int, rows: int, prefix: int | None = None) -> KVCache:
        """An arena for so many tokens, whole pages, and for running states of a prompt's rows.

        Args:
            n_tokens: those of the prompt and of all tails.
            rows: of the batch.
            prefix: tokens of the prompt, where tails, or layers with windows, may hold less of
                theirs; None: not known.
        """
        pages, device = pages_for(n_tokens), self.model.device
        own, runs, shape = pages, pages, self.shape
        if prefix is not None and shape.latent_dim:
            runs = min(pages, pages_for(prefix) + 1)
        elif prefix is not None and shape.windowed:  # a prompt is there whole while it is computed
            tails = pages - pages_for(prefix)
            seen, path = pages_for(shape.window_tokens) + 1, pages_for(prefix) + 2
            own = min(pages, max(tails + seen, path + -(-tails // rows)))
        if own == runs:
            shape = replace(shape, windowed=frozenset())
        states = States(self.model.state_kinds, _places(rows), device)
        sizes = own, PAGE_TOKENS, self.kv_dtype, device
        return KVCache(shape, *sizes, True, states, runs)

    def tokens_that_fit(self, rows: int, prefix: int | None = None) -> int:
        """Tokens whose keys and values fit beside the weights and the running states of rows.

        All layers are counted with all tokens, those with windows too, which may hold less.

        Args:
            rows: of the batch.
            prefix: see `cache`.

        Raises:
            CapacityError: there is no room for any.
        """
        free = free_memory_bytes(self.model.device) - SPARE_BYTES
        free -= _places(rows).total * self.shape.state_bytes
        tail_bytes = self.shape.tail_token_bytes
        if self.shape.latent_dim and prefix is not None:
            return max(0, free - (prefix + 2 * PAGE_TOKENS) * self.shape.token_bytes) // tail_bytes
        if free < self.shape.token_bytes:
            raise CapacityError(
                f"{max(0, free)} bytes are left for keys and values beside the weights and "
                f"{SPARE_BYTES >> 30} GiB for activations; choose a smaller --architecture"
            )
        both = self.shape.token_bytes + (tail_bytes if self.shape.latent_dim else 0)
        return free // both

    def run(
        self,
        prompts: list[Prompt],
        n: int,
        settings: SamplingSettings,
        max_rows: int,
        cache: KVCache,
        decoder: Decoder,
        waiting: list[Waiting] | None = None,
        prefill: type[Prefill] = Prefill,
    ) -> Loop:
        """A run of the sampler's own loop, of all samples, or of these branches."""
        stats = RunStats(started=time.perf_counter())
        text = Detokenizer(NoText(), self.vocabulary)
        ranges = sample_ranges((prompt.task_id for prompt in prompts), n, None)
        records = SampleRecords(prompts, ranges, settings, text, (), (), {}, stats)
        trie = Trie.build(prompt.token_ids for prompt in prompts)
        return assemble(
            self.model,
            self.shape,
            trie,
            cache,
            records,
            stats,
            settings,
            cost=CUDA,
            max_rows=max_rows,
            prefill_tokens=_PREFILL_TOKENS,
            decoder=decoder,
            waiting=waiting,
            prefill_class=prefill,
        )

    def decoder(
        self,
        cache: KVCache,
        settings: SamplingSettings,
        max_rows: int,
        depth: int,
    ) -> Decoder:
        """Fixed buffers for runs over this cache, or for steps without one.

        Args:
            cache: where keys and values are.
            settings: of the runs.
            max_rows: rows of the batch at the most.
            depth: segments of a prompt at the most.
        """
        endless = np.zeros((1, self.vocabulary), np.int16)
        return Decoder(self.model, cache, self.heads, settings, endless, max_rows, depth)

    def warm_up(self, loop: Loop, decoder: Decoder) -> float:
        """Compiles and captures what a run needs, checks one step, and gives up all pages.

        Args:
            loop: not begun; it is of no use afterwards, another on the same decoder is warm.
            decoder: the loop's.

        Returns:
            The relative error of a step's logits against plain torch.
        """
        fork(loop)
        rows = loop.stepper.n_rows
        error = self._error(loop)
        abandon(loop)
        decoder.prepare(rows, loop.stepper.max_tokens)
        return error

    def _error(self, loop: Loop) -> float:
        """One step on the device against the same step of some rows in plain torch.

        Raises:
            HydragenError: they are further apart than rounding explains, or every sample has ended.
        """
        assert isinstance(loop.stepper, DeviceStepper)
        if not loop.stepper.n_rows:
            raise HydragenError("all samples ended before a step was checked: draw more tokens")
        logits, inputs = loop.stepper.look()
        rows = np.unique(np.linspace(0, len(logits) - 1, _CHECKED_ROWS).astype(np.int64))
        found = logits[torch.from_numpy(rows).to(self.model.device)]
        table = loop.residency.table
        tokens, positions, segments, pages, tails, places = (one[rows] for one in inputs)
        hung = tokens, positions, segments, pages, tails
        states = loop.cache.states

        def plain_step() -> Tensor:
            copies = states.take_rows(rows.size)  # the step of the host goes on from these
            states.copy(places, copies)
            logits = decode_tokens(self.model, loop.cache, table, *hung, "torch", copies)
            states.release(copies)
            return logits

        expected = plain_step()
        error, allowed = relative_error(found, expected), self._tolerance
        if expert_layers(self.model.model) and not error < allowed:
            moved = relative_error(self._with_last_bits_moved(plain_step), expected)
            allowed = max(allowed, min(_LAST_BITS * moved, _MOST_OFF))
            print(f"logits are off by {error:.1%}; a last bit moves them by {moved:.1%}")
        if not error < allowed:
            raise HydragenError(f"a decode step's logits are off by {error:.1%}: nothing is timed")
        return error

    def _with_last_bits_moved(self, step: Callable[[], Tensor]) -> Tensor:
        """What a step gives where each number of its embeddings is the one next to it."""

        def moved(_: nn.Module, __: object, out: Tensor) -> Tensor:
            generator = torch.Generator(out.device).manual_seed(0)
            signs = torch.randint(0, 2, out.shape, generator=generator, device=out.device)
            half = torch.finfo(out.dtype).eps / 2
            return (out.double() * (1.0 + half * (2 * signs - 1))).to(out.dtype)

        hook = self.model.model.get_input_embeddings().register_forward_hook(moved)
        try:
            return step()
        finally:
            hook.remove()


def _places(rows: int) -> StatePlaces:
    """Places for running states of a prompt, of rows below it, and of copies of those checked."""
    return StatePlaces(1, _CHECKED_ROWS, padded_rows(rows))


def pages_for(n_tokens: int) -> int:
    """Pages that hold `n_tokens` tokens, before there is a cache to ask."""
    return -(-n_tokens // PAGE_TOKENS)


def fork(loop: Loop) -> None:
    """Takes steps for as long as rows may fork."""
    list(loop.step())
    while loop.stepper.n_rows < loop.stepper.n_samples:
        list(loop.step())


def abandon(loop: Loop) -> None:
    """Gives up all that a run holds in the cache."""
    assert isinstance(loop.stepper, DeviceStepper)
    loop.stepper.close()
    loop.residency.evict_unused(np.empty(0, np.int32))


def random_prompt(length: int, vocabulary: int) -> Prompt:
    """Random token ids, the same for the same length."""
    tokens = np.random.default_rng(length).integers(0, vocabulary, length)
    return Prompt("bench", 0, tokens.astype(np.int32), ())
