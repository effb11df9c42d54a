"""`hydragen sample`, `hydragen-sample`: problems in, samples out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hydragen_cli import arguments
from hydragen_cli.console import console, count, duration, note, prepare_libraries, show, size
from hydragen_cli.inputs import Inputs
from hydragen_cli.interrupts import Interrupted, Interrupts
from hydragen_cli.options import config_files, parse_bytes, unescape
from hydragen_cli.outputs import check_outputs, file_or_stdout, files_of_model
from hydragen_cli.plan import describe
from hydragen_cli.progress import Progress
from hydragen_tree.errors import InputError
from hydragen_tree.sample.shard import Shard
from hydragen_tree.settings import SamplingSettings

if TYPE_CHECKING:
    from hydragen_tree.prompt.prompts import Prompt
    from hydragen_tree.sample.sample import Sample
    from hydragen_tree.sample.sampler import Sampler
    from hydragen_tree.sample.writer import SampleWriter

_DEFAULT = SamplingSettings()


def sample(
    problems: arguments.Problems = None,
    samples: arguments.Samples = 100,
    output: arguments.Output = None,
    resume: arguments.Resume = False,
    force: arguments.Force = False,
    shard: arguments.ShardOf = None,
    first: arguments.First = None,
    last: arguments.Last = None,
    dry_run: arguments.DryRun = False,
    prompts: arguments.Prompts = None,
    chat: arguments.Chat = False,
    variants: arguments.Variants = None,
    temperature: arguments.Temperature = _DEFAULT.temperature,
    top_k: arguments.TopK = _DEFAULT.top_k,
    top_p: arguments.TopP = _DEFAULT.top_p,
    min_p: arguments.MinP = _DEFAULT.min_p,
    max_tokens: arguments.MaxTokens = _DEFAULT.max_tokens,
    stop: arguments.Stop = None,
    stop_token: arguments.StopToken = None,
    seed: arguments.Seed = _DEFAULT.seed,
    logprobs: arguments.Logprobs = False,
    model: arguments.Model = "tiny",
    revision: arguments.Revision = None,
    dtype: arguments.Dtype = "auto",
    kv_dtype: arguments.KvDtype = "auto",
    weights: arguments.Weights = "auto",
    device: arguments.Device = "auto",
    attention: arguments.Attention = "auto",
    compile: arguments.Compile = None,
    memory: arguments.Memory = None,
    max_rows: arguments.MaxRows = None,
    quiet: arguments.Quiet = False,
    config: arguments.Config = None,
) -> int:
    """Draw N samples for each problem: JSON lines on stdout, or in a file that can be resumed."""
    settings = SamplingSettings(
        temperature,
        top_k,
        top_p,
        min_p,
        max_tokens,
        tuple(map(unescape, stop or ())),
        seed,
        logprobs,
        tuple(stop_token or ()),
    )
    part = Shard.parse(shard, first, last).within(samples)
    memory_bytes = parse_bytes("memory_bytes", memory)
    if resume and force:
        raise InputError("would throw away what --resume continues; choose one", setting="force")
    inputs = Inputs.read(problems, prompts, chat, variants)
    for remark in inputs.remarks():
        note(remark, quiet=quiet)

    def prepare() -> "tuple[Sampler, list[Prompt]]":
        prepare_libraries(model, quiet=quiet)

        from hydragen_tree.sample.sampler import Sampler  # torch comes with it: seconds

        sampler = Sampler.from_pretrained(
            model,
            revision=revision,
            dtype=dtype,
            kv_dtype=kv_dtype,
            weights=weights,
            device=device,
            attention=attention,
            memory_bytes=memory_bytes,
            max_rows=max_rows,
            compiled=compile,
        )
        built = inputs.prompts(sampler.tokenizer, seed)
        sampler.check(built, settings, samples, part)
        if kv_dtype == "fp8":
            note(_NOT_EXACT, quiet=quiet)
        if sampler.source.is_quantised:
            note(_NOT_EXACT_WEIGHTS, quiet=quiet)
        return sampler, built

    if dry_run:
        _rehearse(*prepare(), samples, part, settings, memory_bytes, quiet=quiet)
        return 0

    from hydragen_tree.model.read_ahead import read_ahead
    from hydragen_tree.sample.manifest import Manifest, manifest_path
    from hydragen_tree.sample.writer import SampleWriter

    read_ahead(model)
    path = file_or_stdout(output)
    configuration = [("the configuration", file) for file in config_files(config)]
    read = [*inputs.paths(), *files_of_model(model), *configuration]
    manifest = None if path is None else manifest_path(path)
    check_outputs(
        {"output": path}, [*read, *([("its own manifest", manifest)] if manifest else [])]
    )
    check_outputs({"output": manifest}, read)
    with Interrupts() as interrupts, SampleWriter(path, resume=resume, force=force) as writer:
        sampler, built = prepare()

        from hydragen_tree.run import run

        ends = sampler.ends(built, settings)
        writer.begin(
            Manifest.describe(
                built,
                n=samples,
                settings=settings,
                model=sampler.fingerprint,
                problems=inputs.files,
                ends=ends.record(),
                shard=part,
            )
        )
        if writer.complete:
            note(f"{path}: complete, nothing to do", quiet=quiet)
            return 0
        note(f"samples end at {ends}", quiet=quiet)
        if model == "tiny":
            note(_DEMONSTRATION, quiet=quiet)
        if device == "auto" and _is_faster_on_cpu(sampler, built, writer, max_tokens):
            note(_SMALL, quiet=quiet)
        error = sampler.logit_error(built[0])
        if error is not None:
            note(str(error), quiet=quiet)

        def keep(drawn: "Sample") -> None:
            with interrupts.held():
                writer.write(drawn)

        try:
            with Progress(
                lambda: sampler.stats,
                writer.tally,
                to_stdout=path is None,
                quiet=quiet,
            ):
                run(
                    built,
                    samples,
                    sampler=sampler,
                    settings=settings,
                    done=writer.done,
                    shard=part,
                    keep=keep,
                )
        except Interrupted as interrupted:
            note(_how_to_resume(writer), quiet=quiet)
            return interrupted.exit_code
        figures = {
            **asdict(sampler.stats),
            "elapsed_s": round(sampler.stats.elapsed_s, 3),
            "attention": sampler.backend,
        }
        if why := sampler.why_slower:
            figures["attention_slower"] = why
        if error is not None:
            figures["logit_error"] = asdict(error)
        with interrupts.held():
            writer.finish(figures)
        if not quiet:
            show(console(), _summary(writer, figures))
    return 0


_DEMONSTRATION = (
    "tiny is a small demonstration model; name a real one with --model DIRECTORY or OWNER/NAME"
)
_SMALL = "so small a run is probably done sooner by the CPU (in float32): --device cpu"
_NOT_EXACT = (
    "--kv-dtype fp8: keys and values are rounded to 8 bits; samples are not exactly the model's"
)
_NOT_EXACT_WEIGHTS = (
    "linear layers in 8 bits: weights and inputs are rounded; samples are not exactly the model's"
)


def _is_faster_on_cpu(
    sampler: "Sampler", prompts: "Sequence[Prompt]", writer: "SampleWriter", max_tokens: int
) -> bool:
    import torch

    from hydragen_tree.model.small_runs import is_faster_on_cpu

    prompt_tokens = sum(len(prompt.token_ids) for prompt in prompts)
    threads = torch.get_num_threads()
    total = writer.manifest.n_samples
    return is_faster_on_cpu(sampler.source, prompt_tokens, total, max_tokens, threads)


def _rehearse(
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

    outline = sampler.outline(prompts, n, shard)
    for prompt in outline.prompts:
        line = {"task_id": prompt.task_id, "prompt_variant": prompt.variant, "text": prompt.text}
        print(json.dumps({**line, "token_ids": prompt.token_ids.tolist()}))
    if quiet:
        return
    needed = outline.savings.kv_bytes + outline.tail_bytes(settings.max_tokens)
    budget = memory_bytes or free_memory_bytes(sampler.source.device)
    memory = f"{size(needed)} of keys and values at most, of {size(budget)} allowed"
    ends = str(sampler.ends(prompts, settings))
    show(console(), [*describe(outline), ("memory", memory), ("ends", f"samples end at {ends}")])


def _how_to_resume(writer: "SampleWriter") -> str:
    written = count(writer.tally.samples, "sample")
    if writer.path is None or not writer.tally.samples:
        return f"interrupted after {written}"
    return f"interrupted: {written} in {writer.path}; the same command with --resume continues"


def _summary(writer: "SampleWriter", figures: Mapping[str, Any]) -> list[tuple[str, str]]:
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
    if shard := writer.manifest.shard:
        lines.insert(1, ("shard", str(shard)))
    return lines if writer.path is None else [*lines, ("output", str(writer.path))]
