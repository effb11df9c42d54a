"""Which code a run would use on a device, and why: for `hydragen plan --explain`."""

from hydragen_tree.attention.table import backend, choose, passed_over
from hydragen_tree.model.loading import ModelSource, dtype_name
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
    if chosen == "triton" and source.device.type == "cuda":
        steps = "CUDA graphs; once no sample can fork with drawing included, in chunks"
    dtypes = dtype_name(source.dtype)
    if source.kv_dtype != source.dtype:
        dtypes += f", keys and values in {dtype_name(source.kv_dtype)}"
    origin = "that ship" if cost in (CPU, CUDA) else f"of {costs_file()}"
    return [
        ("device", f"{source.device}, {dtypes}"),
        ("attention", f"{chosen}: {backend(chosen).explain(source.heads)} ({why})"),
        ("steps", steps),
        (
            "costs",
            f"constants {origin}: {cost.bandwidth / 1e9:,.0f} GB/s, "
            f"{cost.item_s * 1e6:.1f} us a segment",
        ),
    ]
