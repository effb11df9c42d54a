"""Which code a run would use on a device, and why: for `hydragen plan --explain`."""

from collections import Counter

import torch
from transformers import PreTrainedModel

from hydragen_kernels.inputs import FP8, dtype_name
from hydragen_tree.attention.table import backend, choose, passed_over
from hydragen_tree.model.creation import without_weights
from hydragen_tree.model.fp8_linear import multiplies
from hydragen_tree.model.loading import ModelSource
from hydragen_tree.model.quantising import quantisable
from hydragen_tree.model.support import why_uncaptured
from hydragen_tree.trie.costs import CPU, CUDA, CostModel, costs_file


def explain(source: ModelSource, attention: str, cost: CostModel) -> list[tuple[str, str]]:
    """Names and what they stand for.

    Args:
        source: the model and its device.
        attention: the backend asked for.
        cost: the constants that folding goes by.
    """
    chosen = choose(attention, source.heads)
    why = "asked for"
    if attention == "auto":
        why = "the first that can"
        why += "".join(f"; {name}: {reason}" for name, reason in passed_over(chosen, source.heads))
    steps = "one at a time by the host"
    if why_stepped := why_uncaptured(source.config):
        steps += f": {why_stepped}"
    elif chosen in ("triton", "ordered") and source.device.type == "cuda":
        steps = "CUDA graphs, several at a time, with drawing, forks and ends in them"
    dtypes = dtype_name(source.dtype)
    if source.layers_kind:
        dtypes += f", linear layers in {source.layers_kind}"
    if source.kv_dtype != source.dtype:
        dtypes += f", keys and values in {dtype_name(source.kv_dtype)}"
    origin = "that ship" if cost in (CPU, CUDA) else f"of {costs_file()}"
    return [
        ("device", f"{source.device}, {dtypes}"),
        ("weights", _weights(source)),
        ("attention", f"{chosen}: {backend(chosen).explain(source.heads)} ({why})"),
        ("steps", steps),
        (
            "costs",
            f"constants {origin}: {cost.bandwidth / 1e9:,.0f} GB/s, "
            f"{cost.item_s * 1e6:.1f} us a segment",
        ),
    ]


def weight_bytes(
    source: ModelSource, model: PreTrainedModel | None = None
) -> dict[torch.dtype, int]:
    """Bytes of a model's weights on its device, by type, from the configuration alone.

    Args:
        source: of the model.
        model: it without weights, where that is at hand.
    """
    model = without_weights(source.config, source.dtype) if model is None else model
    n_bytes: Counter[torch.dtype] = Counter()
    for weight in model.parameters():
        n_bytes[weight.dtype] += weight.nbytes
    by_blocks = source.stored.by_blocks
    kind = source.weights
    widens = kind == FP8 and not multiplies(source.device, by_blocks=bool(by_blocks))
    if source.is_quantised and not widens:
        head = model.get_output_embeddings()
        for _, layer in quantisable(model, kind):
            if layer is not head or not source.config.tie_word_embeddings:
                n_bytes[source.dtype] -= layer.weight.nbytes
            n_bytes[kind] += layer.weight.numel() * kind.itemsize
            if kind != torch.bfloat16:
                n_bytes[kind] += layer.out_features * torch.float32.itemsize
    return dict(n_bytes)


def _weights(source: ModelSource) -> str:
    """Their bytes on the device, and what becomes of layers in 8 bits."""
    if source.stack is not None:
        return f"{source.stack.n_bytes / 1e9:,.2f} GB, {source.stack} of 1 bit a number among them"
    sizes = weight_bytes(source)
    kinds = ", ".join(f"{n / 1e9:,.2f} GB in {dtype_name(kind)}" for kind, n in sizes.items())
    if source.stored.widened_from:
        kinds += f", widened from {source.stored.widened_from} as they are loaded"
    if source.weights != FP8 or FP8 in sizes:
        return kinds
    what = "no 8 bits scaled by blocks" if source.stored.by_blocks else "no 8 bits"
    return f"{kinds}: the device multiplies {what}, so they are widened when they are loaded"
