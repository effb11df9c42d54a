"""Which code a run would use on a device, and why: for `hydragen plan --explain`."""

from hydragen_kernels import native
from hydragen_tree.attention.tree_attention import resolve_backend
from hydragen_tree.model.loading import ModelSource, dtype_name
from hydragen_tree.trie.costs import CPU, CUDA, CostModel, costs_file

_BACKENDS = {
    "native": "C for this CPU: a decode step's segments, tails and merging at once; else as torch",
    "torch": "torch, a flash or plain product a segment, merged level by level",
    "flash": "flash attention, one call a level; tails and merging by Triton",
    "reference": "the plain recursion that defines the result",
}


def explain(source: ModelSource, attention: str, cost: CostModel) -> list[tuple[str, str]]:
    """Names and what they stand for.

    Args:
        source: the model and its device.
        attention: the backend asked for.
        cost: the constants that folding goes by.
    """
    backend = resolve_backend(attention, source.device, source.kv_dtype)
    asked = "chosen for this device" if attention == "auto" else "asked for"
    what = _kernels(source) if backend == "triton" else _BACKENDS[backend]
    if source.device.type == "cpu" and (missing := native.why_unavailable()):
        asked += f"; none in C: {missing}"
    steps = "one at a time by the host"
    if backend == "triton" and source.device.type == "cuda":
        steps = "CUDA graphs; once no sample can fork with drawing included, in chunks"
    dtypes = dtype_name(source.dtype)
    if source.kv_dtype != source.dtype:
        dtypes += f", keys and values in {dtype_name(source.kv_dtype)}"
    origin = "that ship" if cost in (CPU, CUDA) else f"of {costs_file()}"
    return [
        ("device", f"{source.device}, {dtypes}"),
        ("attention", f"{what} ({asked})"),
        ("steps", steps),
        (
            "costs",
            f"constants {origin}: {cost.bandwidth / 1e9:,.0f} GB/s, "
            f"{cost.item_s * 1e6:.1f} us a segment",
        ),
    ]


def _kernels(source: ModelSource) -> str:
    """The segment kernel and its tiles."""
    from hydragen_tree.attention.fused import Heads

    config = Heads.of(source.shape, source.dtype, source.device, source.kv_dtype).tiles
    form = "Hopper form, " if config.specialized else ""
    return (
        f"Triton: all segments in one launch ({form}tiles of {config.block_q} rows x "
        f"{config.block_k} keys), tails and merging in one more"
    )
