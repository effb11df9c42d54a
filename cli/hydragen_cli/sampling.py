"""What the commands that sample have in common: the model, what is said before, and after."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hydragen_cli.console import console, count, duration, note, prepare_libraries, show
from hydragen_cli.inputs import Inputs
from hydragen_cli.options import flag_of
from hydragen_cli.plan import describe
from hydragen_tree.errors import InputError
from hydragen_tree.sample.shard import Shard
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.units import size

if TYPE_CHECKING:
    from hydragen_tree.prompt.prompts import Prompt
    from hydragen_tree.sample.sampler import Sampler
    from hydragen_tree.sample.writer import SampleWriter
    from hydragen_tree.spread.spread_sampler import WorkerState

_DEMONSTRATION = (
    "tiny is a small demonstration model; name a real one with --model DIRECTORY or OWNER/NAME"
)
_SMALL = "so small a run is probably done sooner by the CPU (in float32): --device cpu"
_NOT_EXACT = (
    "--kv-dtype fp8: keys and values are rounded to 8 bits; samples are not exactly the model's"
)
_NOT_EXACT_WEIGHTS = (
    "linear layers in {}: weights and inputs are rounded; samples are not exactly the model's"
)
_NOT_EXACT_PROMPTS = (
    "--long-prompt homer: {} beyond the context condensed to half of it; what is drawn is not "
    "exactly the model's"
)
_NOT_EXACT_STACK = (
    "linear layers of a stack: {}, {} of weights in all; samples are not exactly the model's"
)


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The options that say which model samples are drawn from, and how it runs.

    Raises:
        InputError: two of them say where.
    """

    model: str
    revision: str | None
    dtype: str
    kv_dtype: str
    weights: str
    weights_memory: int | None
    long_prompt: str
    device: str
    devices: str | None
    ray: str | None
    ray_workers: int | None
    tensor_parallel: int
    attention: str
    batch_invariant: bool
    compiled: bool
    drafts: str
    memory_bytes: int | None
    max_rows: int | None

    def __post_init__(self) -> None:
        for setting, value in (("devices", self.devices), ("ray", self.ray)):
            if value is not None and self.device != "auto":
                raise InputError(
                    "says where, as --device does; choose one", setting=setting, value=value
                )
        if self.devices is not None and self.ray is not None:
            raise InputError(
                "says where, as --devices does; choose one", setting="ray", value=self.ray
            )
        if self.ray_workers is not None and self.ray is None:
            raise InputError("needs --ray", setting="ray_workers", value=self.ray_workers)
        if self.ray is not None and self.tensor_parallel > 1:
            raise InputError(
                "the devices of a model are of one machine, which --ray does not promise; "
                "choose one",
                setting="tensor_parallel",
                value=self.tensor_parallel,
            )

    def without_cluster(self) -> "ModelChoice":
        """The same on this machine alone, for a look at the prompts."""
        return replace(self, ray=None, ray_workers=None)


def prepare(
    choice: ModelChoice,
    inputs: Inputs,
    n: int,
    shard: Shard | None,
    settings: SamplingSettings,
    *,
    quiet: bool,
) -> "tuple[Sampler, list[Prompt]]":
    """A sampler, with a process on each device where several are named, and the prompts, checked.

    Loads no weights, and starts no process.

    Raises:
        InputError: the model cannot be used, or a prompt does not fit.
    """
    prepare_libraries(choice.model, quiet=quiet, compiles=choice.compiled)

    from hydragen_tree.branch.long_prompts import is_long

    sampler = _sampler(choice, lambda news: note(news, quiet=quiet))
    built = inputs.prompts(sampler.tokenizer, settings.seed)
    sampler.check(built, settings, n, shard)
    lengths = [len(prompt.token_ids) for prompt in built]
    if n_long := sum(is_long(sampler.source, length, settings.max_tokens) for length in lengths):
        note(_NOT_EXACT_PROMPTS.format(count(n_long, "prompt")), quiet=quiet)
    if choice.kv_dtype == "fp8":
        note(_NOT_EXACT, quiet=quiet)
    if sampler.source.is_quantised:
        note(_NOT_EXACT_WEIGHTS.format(sampler.source.layers_kind), quiet=quiet)
    if part := sampler.source.stack:
        note(_NOT_EXACT_STACK.format(part, size(part.n_bytes)), quiet=quiet)
    return sampler, built


def _sampler(choice: ModelChoice, say: Callable[[str], None]) -> "Sampler":
    from hydragen_tree.sample.sampler import Sampler  # torch comes with it: seconds
    from hydragen_tree.spread.spread_sampler import SpreadSampler

    of_model: dict[str, Any] = {
        "revision": choice.revision,
        "dtype": choice.dtype,
        "kv_dtype": choice.kv_dtype,
        "weights": choice.weights,
        "weights_memory": choice.weights_memory,
        "long_prompt": choice.long_prompt,
        "tensor_parallel": choice.tensor_parallel,
        "batch_invariant": choice.batch_invariant,
    }
    of_run: dict[str, Any] = {
        "attention": choice.attention,
        "memory_bytes": choice.memory_bytes,
        "max_rows": choice.max_rows,
        "compiled": choice.compiled,
        "drafts": choice.drafts,
    }
    if choice.ray is not None:
        from hydragen_tree.spread.ray_cluster import join
        from hydragen_tree.spread.ray_crew import find_source, ray_crew

        join(choice.ray)
        sampler = Sampler(find_source(choice.model, **of_model), **of_run)
        return SpreadSampler(sampler, ray_crew(sampler, choice.ray_workers), say)
    if choice.devices is not None:
        from hydragen_tree.spread.devices import device_crew, find_devices

        devices = find_devices(choice.devices)
        sampler = Sampler.from_pretrained(
            choice.model, device=str(devices[0]), **of_model, **of_run
        )
        return SpreadSampler(sampler, device_crew(sampler, devices), say)
    sampler = Sampler.from_pretrained(choice.model, device=choice.device, **of_model, **of_run)
    if choice.tensor_parallel > 1:
        from hydragen_tree.spread.devices import device_crew, usual_devices

        devices = usual_devices(sampler.source.device, choice.tensor_parallel)
        return SpreadSampler(sampler, device_crew(sampler, devices), say)
    return sampler


def rehearse(
    sampler: "Sampler",
    prompts: "Sequence[Prompt]",
    n: int,
    shard: Shard | None,
    settings: SamplingSettings,
    memory_bytes: int | None,
    *,
    quiet: bool,
) -> None:
    """Prints the prompts as JSON lines, and what the run would share and need."""
    from hydragen_tree.branch.budget import free_memory_bytes

    outline = sampler.outline(prompts, n, shard, settings.max_tokens)
    for prompt in outline.prompts:
        line = {"task_id": prompt.task_id, "prompt_variant": prompt.variant, "text": prompt.text}
        print(json.dumps({**line, "token_ids": prompt.token_ids.tolist()}))
    if quiet:
        return
    needed = outline.savings.kv_bytes + outline.tail_bytes(settings.max_tokens)
    budget = memory_bytes or free_memory_bytes(sampler.source.device)
    memory = f"{size(needed)} of keys and values at most, of {size(budget)} allowed"
    found = "{name}, {dtype} on {device}".format(**sampler.fingerprint)
    rows = f"{count(sampler.max_rows, 'row')} at most"
    facts = [
        ("model", f"{found}, {sampler.backend} attention, {rows}"),
        *describe(outline),
        ("memory", memory),
        ("ends", f"samples end at {sampler.ends(prompts, settings)}"),
        *(("model's own", remark) for remark in _other_suggestions(sampler, settings)),
    ]
    show(console(), facts)


def remarks(
    choice: ModelChoice,
    sampler: "Sampler",
    prompts: "Sequence[Prompt]",
    writer: "SampleWriter",
    settings: SamplingSettings,
) -> Iterator[str]:
    """What is to be said before samples are drawn; loads the weights where they are rounded."""
    from hydragen_kernels.inputs import dtype_name
    from hydragen_tree.model.quantised_files import widening_remark
    from hydragen_tree.model.rotary import longrope_remark
    from hydragen_tree.prompt.prompts import longest_sequence

    yield f"samples end at {sampler.ends(prompts, settings)}"
    yield from _other_suggestions(sampler, settings)
    longest = longest_sequence(prompts, settings.max_tokens)
    if stored := sampler.source.stored.widened_from:
        yield widening_remark(stored, dtype_name(sampler.source.dtype))
    if frequencies := longrope_remark(sampler.source.config, longest):
        yield frequencies
    if choice.model == "tiny":
        yield _DEMONSTRATION
    is_our_choice = choice.device == "auto" and choice.devices is None and choice.ray is None
    if is_our_choice and _is_faster_on_cpu(sampler, prompts, writer, settings.max_tokens):
        yield _SMALL
    error = sampler.logit_error(prompts[0])
    if error is not None:
        yield str(error)


def _other_suggestions(sampler: "Sampler", settings: SamplingSettings) -> Iterator[str]:
    """What the model's own files would have otherwise; some tools take that as their default."""
    from hydragen_tree.model.eos import stated_sampling

    stated = stated_sampling(sampler.source.path, sampler.source.revision)
    flags = [
        f"{flag_of(name)} {value:g}"
        for name, value in stated.items()
        if value != getattr(settings, name)
    ]
    if flags:
        suggested = " ".join(flags)
        yield f"its generation_config.json suggests {suggested}, which holds only where given"


def workers_of(sampler: "Sampler") -> "Sequence[WorkerState]":
    """What is known of the workers that draw for a sampler, live; none where it draws itself."""
    from hydragen_tree.spread.spread_sampler import SpreadSampler

    return sampler.workers if isinstance(sampler, SpreadSampler) else ()


def _is_faster_on_cpu(
    sampler: "Sampler", prompts: "Sequence[Prompt]", writer: "SampleWriter", max_tokens: int
) -> bool:
    import torch

    from hydragen_tree.model.small_runs import is_faster_on_cpu

    prompt_tokens = sum(len(prompt.token_ids) for prompt in prompts)
    threads = torch.get_num_threads()
    total = writer.manifest.n_samples
    return is_faster_on_cpu(sampler.source, prompt_tokens, total, max_tokens, threads)


def describe_batch(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How full the batch was, what came beside its steps, and how well lengths were predicted."""
    steps = figures["steps_host"] + figures["steps_device"]
    put_back = count(figures["rows_parked"], "row")
    busy_s = max(figures["admission_s"] + figures["stepping_s"], 1e-9)
    lines = [
        (
            "batch",
            f"{figures['rows_computed'] / max(steps, 1):,.1f} rows a step, {put_back} put back",
        ),
        (
            "prompts",
            f"{figures['admission_s'] / busy_s:.0%} of the time beside {count(steps, 'step')}",
        ),
    ]
    if proposed := figures.get("drafts_proposed"):
        rows, accepted = figures["rows_computed"], figures["drafts_accepted"]
        a_step = rows / max(rows - accepted, 1)
        drawn = f"{accepted / proposed:.0%} of {proposed:,} drawn"
        lines.append(("drafts", f"{drawn}, {a_step:,.2f} tokens of a row in a step"))
    if number := figures["lengths_predicted"]:
        predicted, real, error = (
            figures[f"length_{what}_tokens"] / number for what in ("predicted", "real", "error")
        )
        means = f"{predicted:,.1f} tokens predicted in the mean, {real:,.1f} drawn"
        lines.append(("lengths", f"{means}, {error:,.1f} off each, of {number:,}"))
    return lines


def describe_samples(writer: "SampleWriter", figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What came out, what it cost, and what sharing saved."""
    tally, limit = writer.tally, writer.manifest.settings["max_tokens"]
    named = writer.manifest.ends.get("stop_tokens")
    ends = {
        "stop": "by a stop string or token" if named else "by a stop string",
        "eos": "by end of text",
        "length": f"cut at {count(limit, 'token')}",
    }
    ended = [
        f"{tally.finish_reasons[r]:,} {how}" for r, how in ends.items() if tally.finish_reasons[r]
    ]
    drawn, rows = figures["tokens_sampled"], figures["rows_computed"]
    kept = figures["prompt_tokens"] + rows
    unshared = figures["prompt_tokens_unshared"] + drawn
    elapsed_s = figures["elapsed_s"]
    model = writer.manifest.model
    resumed = figures["samples_done"] < tally.samples
    now = f", {figures['samples_done']:,} of them now" if resumed else ""
    rounded = f", linear layers in {model['weights']}" if "weights" in model else ""
    rounded += f", keys and values in {model['kv_dtype']}" if "kv_dtype" in model else ""
    rounded += ", batch-invariant" if "batch_invariant" in model else ""
    about = "{name}, {dtype} on {device}, {attention} attention".format(**model, **figures)
    lines = [
        ("model", about + rounded),
        ("samples", f"{tally.samples:,} of {count(len(writer.manifest.ranges()), 'problem')}{now}"),
        ("programs", f"{tally.distinct_programs:,} distinct"),
        ("ended", ", ".join(ended)),
        ("drawn", f"{count(drawn, 'token')}, {drawn / elapsed_s:,.0f} a second"),
        ("rows", f"{rows:,} computed for {count(drawn, 'token')}: {drawn - rows:,} saved"),
        (
            "keys",
            f"of {count(kept, 'token')}, {unshared:,} without sharing: {unshared - kept:,} saved",
        ),
        ("time", duration(elapsed_s)),
    ]
    if workers := figures.get("workers"):
        shares = (f"{number:,} by {name}" for name, number in workers.items())
        lines.insert(2, ("workers", ", ".join(shares)))
    if shard := writer.manifest.shard:
        lines.insert(1, ("shard", str(shard)))
    return lines
