"""Whether a loaded model computes a row as its own history says, whatever shares its batch.

Nothing is taken on trust. An audit looks at every operation of a pass that is not a form of our
own: those that make each number of its own inputs, rounded once, cannot depend on a batch; a sum
along a row, a product or an exponential of a library can. Then a probe computes the same tokens
alone and among others, at several places of batches of several sizes, by prefill and by decode,
by several threads of a CPU, and compares what every module gives, bit for bit.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from hydragen_kernels.items import Item, item_table
from hydragen_tree.attention.plan import Plan, Tails
from hydragen_tree.errors import InputError, ModelError
from hydragen_tree.model.adapter import TreeModel
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.loading import ModelSource
from hydragen_tree.model.ranks import MOST_ORDERED_RANKS, Ranks
from hydragen_tree.model.step import Memory
from hydragen_tree.shape import KVShape

# Operations that make each number of numbers at its own place, rounded once, or that only move
# them, and layer norms, which torch computes row by row.
_ALONE = """
_local_scalar_dense _reshape_alias _to_copy _unsafe_view abs add alias all any arange as_strided
bitwise_and bitwise_not bitwise_or cat clamp clamp_max clamp_min clone constant_pad_nd copy
cumsum detach div embedding empty empty_like empty_strided eq expand fill floor floor_divide
full full_like gather ge gt index index_copy index_put index_select is_nonzero le lift_fresh
logical_and logical_not logical_or lt masked_fill max maximum min minimum mul native_layer_norm
ne neg new_empty new_full new_ones new_zeros ones ones_like permute reciprocal relu remainder
repeat rsqrt rsub scalar_tensor select select_scatter slice slice_scatter split split_with_sizes
sqrt squeeze stack sub t transpose tril triu unbind unfold unsqueeze view where zero zeros
zeros_like
"""
_KNOWN = frozenset(_ALONE.split())
# On a GPU a function of single numbers is one code for all of them; on a CPU the last ones of a
# vector may take another.
_ALONE_ON_GPU = """
_pin_memory is_pinned pin_memory cos erf exp expm1 gelu log pow sigmoid silu sin softplus
tanh
"""
_KNOWN_ON_GPU = _KNOWN | frozenset(_ALONE_ON_GPU.split())
_OF_WHOLE_NUMBERS = {"cumsum"}
# Sums of two ranks: a number of each, rounded once.
_OF_TWO_RANKS = {
    "c10d::allreduce",
    "symm_mem::one_shot_all_reduce_copy",
    "symm_mem::two_shot_all_reduce_out",
}
_PAGE = 16
_SEGMENT = _PAGE  # tokens that are looked at in a prefill pass
_TAIL = 3  # and after them in decode steps
_ROWS = (2, 9, 40)  # of batches that one of the rows is looked at in
_ROWS_ON_GPU = (*_ROWS, 130)  # which takes other tiles for more
_THREADS = (1, 2, 3)
_PAGES = 2 + max(_ROWS_ON_GPU)


_Seen = list[tuple[str, bytes]]  # of a token: modules in the order of their calls, and digests


def ordered_attention(asked: str, compiled: bool) -> str:
    """The backend that sums in one order, where it is that or `auto` that was asked for.

    Args:
        asked: the backend.
        compiled: whether layers are to be compiled.

    Raises:
        InputError: it is another, or they are: compilers choose orders by shapes.
    """
    if compiled:
        raise InputError("not with compiled layers; leave it out", setting="batch_invariant")
    if asked not in ("auto", "ordered"):
        raise InputError(
            f"attention {asked} sums in an order that its batch decides; use auto",
            setting="batch_invariant",
        )
    return "ordered"


def adapted(
    weights: PreTrainedModel, source: ModelSource, attention: str, ranks: Ranks
) -> TreeModel:
    """A loaded model, ready to run; in the batch-invariant mode it has been checked.

    Args:
        weights: the model.
        source: where it is from.
        attention: the backend.
        ranks: those that have the model together.

    Raises:
        ModelError: see `check_invariance`.
    """
    model = TreeModel(
        weights,
        attention,
        ranks,
        has_latent_tails=source.shape.latent_dim > 0,
        batch_invariant=source.batch_invariant,
    )
    if source.batch_invariant:
        check_invariance(model, source.shape, source.name, source.kv_dtype)
    return model


def check_invariance(
    model: TreeModel, shape: KVShape, name: str, kv_dtype: torch.dtype | None = None
) -> None:
    """Refuses a model whose rows depend on what shares their batch.

    Args:
        model: ready to run.
        shape: of its keys and values.
        name: as the user gave it.
        kv_dtype: of keys and values; None: that of the weights.

    Raises:
        ModelError: it does, and which module is the first.
    """
    probe = _Probe(model, shape, kv_dtype)
    threads = torch.get_num_threads()
    try:
        why = probe.audit() or probe.difference(threads)
    finally:
        torch.set_num_threads(threads)
    if why:
        raise ModelError(
            f"{name}: {why}, so that samples could depend on their batch; leave it out or choose "
            "another model",
            setting="batch_invariant",
        )


class _Probe:
    """Passes of a few tokens through a model, into an arena of its own."""

    def __init__(
        self, model: TreeModel, shape: KVShape, kv_dtype: torch.dtype | None = None
    ) -> None:
        self._model = model
        of_weights = (p.dtype for p in model.model.parameters() if p.is_floating_point())
        dtype = kv_dtype or next(of_weights)
        self._cache = KVCache(shape, _PAGES, _PAGE, dtype, model.device)
        self._vocabulary = int(model.model.config.get_text_config(decoder=True).vocab_size)

    def audit(self) -> str | None:
        """The first operation that could look at other rows, as a clause; None if there is none."""
        self._segment([])  # tables of positions are made
        known = _KNOWN_ON_GPU if self._model.is_fused else _KNOWN
        if self._model.ranks.size <= MOST_ORDERED_RANKS:
            known |= _OF_TWO_RANKS
        with _calls(self._model.model) as calls, _Audit(calls, known) as audit:
            self._segment([])
        why: str | None = audit.why
        return why

    def difference(self, threads: int) -> str | None:
        """The first module whose numbers depend on the batch, as a clause; None if none does."""
        expected = self._segment([])
        for others in ([5], [8, 30]):
            if why := _first_difference(expected, self._segment(others), "among other prompts"):
                return why
        for count in () if self._model.is_fused else _THREADS:
            torch.set_num_threads(count)
            if why := _first_difference(expected, self._segment([7]), f"by {count} threads"):
                return why
        torch.set_num_threads(threads)
        decoded = [self._decoded(at, 1, 0) for at in range(_TAIL)]
        if why := _first_difference(decoded, self._tail(), "by prefill, not by decode"):
            return why
        for rows in _ROWS_ON_GPU if self._model.is_fused else _ROWS:
            for place in {0, rows // 2, rows - 1}:
                found = [self._decoded(_TAIL - 1, rows, place)]
                how = f"in a batch of {rows} rows"
                if why := _first_difference(decoded[-1:], found, how):
                    return why
        return None

    def _segment(self, others: Sequence[int]) -> list[_Seen]:
        """The tokens of the prompt as prefill has them, behind and before other prompts.

        Args:
            others: their lengths; the first one comes before.
        """
        lengths = [*others[:1], _SEGMENT, *others[1:]]
        own = len(others[:1])
        items: list[Item[int]] = []
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        first = 0
        page = 0 if own == 0 else 1 + _TAIL
        for number, length in enumerate(lengths):
            start = 0 if number == own else page * _PAGE
            page += 0 if number == own else self._cache.pages_for(length)
            items.append(Item(first, length, start, length, causal=1, level=0))
            tokens += self._tokens(0 if number == own else number + 1, length)
            positions += range(length)
            slots += range(start, start + length)
            first += length
        begin = sum(lengths[:own])
        return self._pass(tokens, positions, slots, Plan(first, item_table(items)), begin, _SEGMENT)

    def _decoded(self, at: int, rows: int, place: int) -> _Seen:
        """A token behind the prompt as a decode step has it; other rows hang from the prompt too.

        Args:
            at: how many tokens there are between it and the prompt.
            rows: of the batch.
            place: of the token's row.
        """
        tails = [at if row == place else row % (_PAGE - 1) for row in range(rows)]
        pages = np.arange(2, 2 + rows, dtype=np.int32)  # behind the prompt's, and this row's own
        pages[place] = 1
        tokens = [
            self._tokens(0 if row == place else row + 9, _SEGMENT + tail + 1)[-1]
            for row, tail in enumerate(tails)
        ]
        lengths = np.array(tails, np.int32) + 1
        slots = pages * _PAGE + lengths - 1
        positions = _SEGMENT + lengths - 1
        items = item_table([Item(0, rows, 0, _SEGMENT, causal=0, level=0)])
        plan = Plan(rows, items, Tails(pages[:, None], lengths, _PAGE))
        return self._pass(tokens, positions.tolist(), slots.tolist(), plan, place, 1)[0]

    def _tail(self) -> list[_Seen]:
        """The tokens behind the prompt as prefill has them when a branch comes back."""
        tokens = self._tokens(0, _SEGMENT + _TAIL)[_SEGMENT:]
        positions = list(range(_SEGMENT, _SEGMENT + _TAIL))
        items = [
            Item(0, _TAIL, 0, _SEGMENT, causal=0, level=0),
            Item(0, _TAIL, _PAGE, _TAIL, causal=1, level=1),
        ]
        plan = Plan(_TAIL, item_table(items))
        return self._pass(tokens, positions, positions, plan, 0, _TAIL)

    def _tokens(self, sequence: int, length: int) -> list[int]:
        """The first tokens of one of several sequences."""
        return [(31 * sequence + 7 * at + 3) % self._vocabulary for at in range(length)]

    def _pass(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        slots: Sequence[int],
        plan: Plan,
        begin: int,
        count: int,
    ) -> list[_Seen]:
        """One pass, and what was given for tokens begin .. begin + count - 1 of it."""
        model = self._model
        ids, places, into = (
            torch.tensor(x, device=model.device) for x in (tokens, positions, slots)
        )
        with _outputs(model.model, len(tokens), begin, count) as digests:
            memories = [Memory(into, model.attend(plan))]
            logits = model.forward(ids, places, memories, None, self._cache)
        for at, own in enumerate(digests):
            own.append(("the head", _digest(logits[begin + at])))
        return digests


class _Audit(TorchDispatchMode):
    """Notes the first operation that is not known to make each number of its own inputs.

    Args:
        calls: names of the modules that are being called, kept by others.
        known: operations.
    """

    def __init__(self, calls: list[str], known: frozenset[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls, self._known = calls, known
        self.why: str | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Notes the operation, and does it."""
        named = kwargs or {}
        with self:  # what it is made of, where it is made of others
            found = func.decompose(*args, **named)
        if found is not NotImplemented:
            return found
        found = func(*args, **named)
        name = func._schema.name.removeprefix("aten::")
        plain = name.removesuffix("_")
        is_known = plain in self._known and named.get("alpha", 1) == 1
        is_known |= plain == "pow" and args[1] == 2  # x x
        is_known |= plain == "sort" and named.get("stable") is True  # the order is then the row's
        is_known |= plain == "scatter" and not isinstance(args[-1], Tensor)  # of one number
        is_known |= plain == "bmm" and args[0].shape[-1] == 1  # sums of one number: rotary angles
        is_known |= all(isinstance(one, nn.Parameter | float | int) for one in args)  # of weights
        if isinstance(found, Tensor):
            is_known &= plain not in _OF_WHOLE_NUMBERS or not found.is_floating_point()
        if not is_known and self.why is None:
            self.why = f"{self._calls[-1] if self._calls else 'it'} computes torch's {name}"
        return found


@contextmanager
def _calls(model: nn.Module) -> Iterator[list[str]]:
    """The names of the modules that are being called, the innermost last."""
    calls: list[str] = []
    hooks = []
    for name, module in model.named_modules():
        what = f"{name or 'the model'} ({type(module).__name__})"
        hooks.append(module.register_forward_pre_hook(lambda *_, w=what: calls.append(w)))
        hooks.append(module.register_forward_hook(lambda *_: calls.pop() and None))
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _outputs(model: nn.Module, n_tokens: int, begin: int, count: int) -> Iterator[list[_Seen]]:
    """For tokens begin .. begin + count - 1 of a pass, what each module gives, as digests."""
    seen: list[_Seen] = [[] for _ in range(count)]

    def note(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 3 and output.shape[:2] == (1, n_tokens):
            for at, own in enumerate(seen):
                own.append((name, _digest(output[0, begin + at])))

    hooks = [
        module.register_forward_hook(
            lambda one, _, output, n=name: note(f"{n} ({type(one).__name__})", output)
        )
        for name, module in model.named_modules()
        if name
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _first_difference(expected: Sequence[_Seen], found: Sequence[_Seen], how: str) -> str | None:
    """The first module that gave other bits for the same token; None if none did."""
    for ours, theirs in zip(expected, found, strict=True):
        for (name, was), (_, now) in zip(ours, theirs, strict=True):
            if was != now:
                return f"{name} gives other bits {how}"
    return None


def _digest(row: Tensor) -> bytes:
    data = row.contiguous().flatten().view(torch.uint8).cpu().numpy().tobytes()
    return blake2b(data, digest_size=8).digest()
