"""How a notebook shows a sampler: what its model is, how it runs, and what it has drawn."""

from html import escape
from typing import Protocol

from hydragen_kernels.inputs import dtype_name
from hydragen_tree.model.loading import ModelSource
from hydragen_tree.sample.records import RunStats


class _Sampler(Protocol):
    """What is shown of a sampler."""

    source: ModelSource
    backend: str
    max_rows: int
    memory_bytes: int | None
    stats: RunStats


class NotebookView:
    """Gives a sampler a form for notebooks; loads no weights."""

    def _repr_html_(self: _Sampler) -> str:
        """Its facts as a table, those of its latest run among them."""
        rows = "".join(
            f'<tr><th style="text-align:left">{escape(name)}</th>'
            f'<td style="text-align:left">{escape(value)}</td></tr>'
            for name, value in _facts(self)
        )
        caption = f"Sampler of {escape(self.source.name)}"
        return f"<table><caption>{caption}</caption><tbody>{rows}</tbody></table>"


def _facts(sampler: _Sampler) -> list[tuple[str, str]]:
    source, stats = sampler.source, sampler.stats
    dtype, kv_dtype = map(dtype_name, (source.dtype, source.kv_dtype))
    model = f"{source.name}, {dtype} on {source.device}"
    if source.layers_kind:
        model += f", linear layers in {source.layers_kind}"
    if source.batch_invariant:
        model += ", batch-invariant"
    memory = "measured" if sampler.memory_bytes is None else f"{sampler.memory_bytes:,} bytes"
    facts = [
        ("model", model),
        ("attention", sampler.backend),
        ("context", f"{source.context_tokens:,} tokens"),
        ("keys and values", f"{kv_dtype}, {source.shape.token_bytes:,} bytes a token; {memory}"),
        ("batch", f"{sampler.max_rows:,} rows at the most"),
    ]
    if stats.samples_total:
        facts += [
            ("latest run", f"{stats.samples_done:,} of {stats.samples_total:,} samples"),
            (
                "drawn",
                f"{stats.tokens_sampled:,} tokens from {stats.rows_computed:,} rows; "
                f"{stats.prompt_tokens:,} prompt tokens for {stats.prompt_tokens_unshared:,}",
            ),
        ]
    return facts
