"""`hydragen plan`: the trie of some prompts, and what it saves. Loads no weights."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hydragen_cli import arguments
from hydragen_cli.console import console, count, prepare_libraries, show
from hydragen_cli.estimate import estimated
from hydragen_cli.inputs import Inputs
from hydragen_cli.options import parse_bytes
from hydragen_cli.outputs import check_outputs, files_of_model
from hydragen_tree.errors import InputError, first_of
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.units import size

if TYPE_CHECKING:
    from rich.tree import Tree

    from hydragen_tree.sample.sampler import Sampler
    from hydragen_tree.trie.folding import Fold
    from hydragen_tree.trie.outline import Outline
    from hydragen_tree.trie.trie import Segment

_MAX_CHILDREN = 8
_MAX_DEPTH = 40  # levels; prompts that are prefixes of one another make thousands
_MAX_FOLDS = 3
_PREVIEW_TOKENS = 24
_DEFAULT = SamplingSettings()

_Explain = Annotated[
    bool,
    typer.Option(
        "--explain", help="Also say which attention code the device would run, and by what costs."
    ),
]
_DeviceCount = Annotated[
    int | None,
    typer.Option(
        "--devices",
        metavar="N",
        help="Also estimate the run on so many devices: time, memory, pieces, idle time.",
    ),
]
_Like = Annotated[
    Path | None,
    typer.Option(
        "--like",
        metavar="SAMPLES",
        help="With --devices: go by the speed and the lengths of this earlier run, of the same "
        "model on a device of the same kind. Default: measured constants.",
    ),
]


def plan(
    problems: arguments.Problems = None,
    samples: arguments.Samples = 100,
    prompts: arguments.Prompts = None,
    chat: arguments.Chat = False,
    chat_option: arguments.ChatOption = None,
    variants: arguments.Variants = None,
    seed: arguments.Seed = _DEFAULT.seed,
    model: arguments.Model = "tiny",
    revision: arguments.Revision = None,
    dtype: arguments.Dtype = "auto",
    kv_dtype: arguments.KvDtype = "auto",
    weights: arguments.Weights = "auto",
    weights_memory: arguments.WeightsMemory = None,
    device: arguments.Device = "auto",
    max_rows: arguments.MaxRows = None,
    attention: arguments.Attention = "auto",
    explain: _Explain = False,
    devices: _DeviceCount = None,
    tensor_parallel: arguments.TensorParallel = 1,
    max_tokens: arguments.MaxTokens = _DEFAULT.max_tokens,
    like: _Like = None,
    as_json: arguments.AsJson = False,
    config: arguments.Config = None,
) -> None:
    """Draw the trie of the prompts: what is shared, what is folded, what that saves.

    Reads the model's configuration and tokenizer, never its weights. With --devices N it also
    estimates the run on N devices: time, memory, pieces, idle time.
    """
    if devices is None and like is not None:
        raise InputError("is what --devices goes by; give both", setting="like", value=like)
    inputs = Inputs.read(problems, prompts, chat, chat_option, variants)
    check_outputs({}, [*inputs.paths(), *files_of_model(model)])

    prepare_libraries(model, quiet=as_json)

    from hydragen_tree.model.explain import explain as explanation
    from hydragen_tree.sample.sampler import Sampler

    sampler = Sampler.from_pretrained(
        model,
        revision=revision,
        dtype=dtype,
        kv_dtype=kv_dtype,
        weights=weights,
        weights_memory=parse_bytes("weights_memory", weights_memory),
        device=device,
        tensor_parallel=tensor_parallel,
        max_rows=max_rows,
        attention=attention,
    )
    built = inputs.prompts(sampler.tokenizer, seed)
    outline = sampler.outline(built, samples)
    facts = explanation(sampler.source, attention, sampler.cost) if explain else []
    if explain:
        facts += [("rows", _rows(sampler, max_rows)), ("ends", str(sampler.ends(built)))]
    many: list[tuple[str, str]] = []
    estimate = None
    if devices is not None:
        many, estimate = estimated(sampler, outline, devices, max_tokens, like)
    if as_json:
        record = outline.record()
        if estimate is not None:
            record["estimate"] = estimate
        if explain:
            record["explanation"] = dict(facts)
        print(json.dumps(record, indent=1))
        return

    terminal = console(stdout=True)
    terminal.print(draw_tree(outline, sampler.tokenizer))
    show(terminal, describe(outline))
    for more in filter(None, (facts, many)):
        show(terminal, more)


def _rows(sampler: "Sampler", asked: int | None) -> str:
    """How many a batch has at the most, and why."""
    from hydragen_tree.branch.budget import USUAL_TOKENS
    from hydragen_tree.branch.forecast import LEAST_ROWS

    said = f"{sampler.max_rows:,} at most"
    if asked is not None:
        said += ", as asked for"
    elif sampler.source.device.type == "cuda":
        said += f", as memory is likely to hold with {USUAL_TOKENS} tokens of each"
    if sampler.is_fused:
        said += f"; while samples may part, steps are for {LEAST_ROWS} or more: fewer take as long"
    return said


def draw_tree(outline: "Outline", tokenizer: Any) -> "Tree":
    """The trie that is run, one line a segment; crowded places are cut short and say so."""
    from rich.text import Text
    from rich.tree import Tree

    trie = outline.trie
    ends: dict[int, list[str]] = {}
    for prompt, leaf in zip(outline.prompts, trie.prompt_leaves.tolist(), strict=True):
        name = f"{prompt.task_id} #{prompt.variant}"
        ends.setdefault(int(trie.leaf_segments[leaf]), []).append(name)

    def label(segment: "Segment") -> Text:
        n_tokens = segment.tokens.size
        names = ends.get(segment.index, [])
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(count(n_tokens, "token"), style="bold")
        text.append(f" {size(outline.shape.held_bytes(n_tokens))}")
        text.append(f" for {count(int(outline.rows_below[segment.index]), 'row')}", style="cyan")
        if names:
            text.append(f" {first_of(names, 1)}", style="green")
        preview = tokenizer.decode(segment.tokens[:_PREVIEW_TOKENS].tolist())
        text.append(f"  {preview!r}", style="dim")
        return text

    leaves = count(len(trie.leaf_segments), "leaf", "leaves")
    top = Tree(f"{count(len(outline.prompts), 'prompt')}, {leaves}", guide_style="dim")
    nodes = {-1: top}
    children = {-1: [root.index for root in trie.roots]}
    children |= {segment.index: list(segment.children) for segment in trie}
    for segment in trie:
        if (above := nodes.get(segment.parent)) is None:
            continue  # hidden with its parent
        siblings = children[segment.parent]
        if segment.depth == _MAX_DEPTH:
            if segment.index == siblings[0]:
                above.add("and deeper ones", style="dim")
        elif segment.index in siblings[:_MAX_CHILDREN]:
            nodes[segment.index] = above.add(label(segment))
        elif segment.index == siblings[_MAX_CHILDREN]:
            above.add(f"and {len(siblings) - _MAX_CHILDREN:,} more", style="dim")
    return top


def describe(outline: "Outline") -> list[tuple[str, str]]:
    """What sharing saves in a full batch, and what was folded."""
    saved = outline.savings
    lines = [
        ("batch", f"{count(outline.rows, 'row')}, {outline.n:,} samples a problem"),
        ("tokens", f"{saved.tokens:,} shared, {saved.tokens_unshared:,} without sharing"),
        ("held", _compare(saved.kv_bytes, saved.kv_bytes_unshared, "of keys and values")),
        ("a step", _compare(saved.step_bytes, saved.step_bytes_unshared, "moved")),
    ]
    if outline.shape.latent_dim:
        own, whole = outline.shape.tail_token_bytes, outline.shape.token_bytes
        lines.append(("tails", f"{own:,} bytes a token (latent vectors); prompts {whole:,}"))
    if states := outline.shape.state_bytes:
        lines.append(("states", f"{size(states)} a row, and as much a segment"))
    if not outline.folds:
        return [*lines, ("folded", "nothing")]
    kinds = Counter(sorted(outline.folds, key=lambda fold: -fold.n_tokens))
    lines.append(("folded", f"{count(len(outline.folds), 'segment')} that would not pay, such as"))
    for fold, times in list(kinds.items())[:_MAX_FOLDS]:
        lines.append(("", _why(fold) if times == 1 else f"{times:,} times: {_why(fold)}"))
    return lines


def _compare(shared: int, unshared: int, what: str) -> str:
    factor = f", {unshared / shared:,.1f} times as much" if shared else ""
    return f"{size(shared)} {what}; without sharing {size(unshared)}{factor}"


def _why(fold: "Fold") -> str:
    return (
        f"{count(fold.n_tokens, 'token')} shared by {fold.branches} branches at level "
        f"{fold.depth}: reading them once saves {fold.saved_s * 1e6:.1f} us a layer and step, "
        f"merging costs {fold.spent_s * 1e6:.1f}"
    )
