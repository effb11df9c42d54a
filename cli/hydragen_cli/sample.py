"""`hydragen sample`, `hydragen-sample`: problems in, samples out."""

from typing import TYPE_CHECKING

import typer

from hydragen_cli import arguments
from hydragen_cli.arrivals import Arrivals
from hydragen_cli.console import console, count, note, prints_on_stderr, show
from hydragen_cli.effective import given_settings, show_if_asked
from hydragen_cli.inputs import Inputs
from hydragen_cli.interrupts import Interrupted, Interrupts
from hydragen_cli.options import config_files, parse_bytes, unescape
from hydragen_cli.outputs import check_outputs, file_or_stdout, files_of_model
from hydragen_cli.progress import Progress
from hydragen_cli.requested import as_requested
from hydragen_cli.sampling import (
    ModelChoice,
    describe_batch,
    describe_samples,
    prepare,
    rehearse,
    remarks,
    workers_of,
)
from hydragen_tree.errors import InputError
from hydragen_tree.sample.shard import Shard
from hydragen_tree.settings import SamplingSettings

if TYPE_CHECKING:
    from hydragen_tree.prompt.prompts import Prompt
    from hydragen_tree.sample.sample import Sample
    from hydragen_tree.sample.writer import SampleWriter

_DEFAULT = SamplingSettings()


def sample(
    ctx: typer.Context,
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
    chat_option: arguments.ChatOption = None,
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
    weights_memory: arguments.WeightsMemory = None,
    long_prompt: arguments.LongPrompt = "refuse",
    device: arguments.Device = "auto",
    devices: arguments.Devices = None,
    ray: arguments.Ray = None,
    ray_workers: arguments.RayWorkers = None,
    tensor_parallel: arguments.TensorParallel = 1,
    attention: arguments.Attention = "auto",
    batch_invariant: arguments.BatchInvariant = False,
    compile: arguments.Compile = False,
    drafts: arguments.Drafts = "auto",
    memory: arguments.Memory = None,
    max_rows: arguments.MaxRows = None,
    verbose: arguments.Verbose = False,
    quiet: arguments.Quiet = False,
    config: arguments.Config = None,
) -> int:
    """Draw N samples for each problem: JSON lines on stdout, or in a file that can be resumed."""
    is_whole = dry_run or resume or tensor_parallel > 1 or (first, last) != (None, None)
    streams = not (is_whole or output or shard or devices or ray)
    inputs = Inputs.read(problems, prompts, chat, chat_option, variants, streams=streams)
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
    settings, samples = as_requested(ctx, inputs.asked, settings, samples)
    if prompts:
        show_if_asked(ctx)
    part = Shard.parse(shard, first, last).within(samples)
    memory_bytes = parse_bytes("memory_bytes", memory)
    if resume and force:
        raise InputError("would throw away what --resume continues; choose one", setting="force")
    for remark in inputs.remarks():
        note(remark, quiet=quiet)
    choice = ModelChoice(
        model,
        revision,
        dtype,
        kv_dtype,
        weights,
        parse_bytes("weights_memory", weights_memory),
        long_prompt,
        device,
        devices,
        ray,
        ray_workers,
        tensor_parallel,
        attention,
        batch_invariant,
        compile,
        drafts,
        memory_bytes,
        max_rows,
    )
    if dry_run:
        here = choice.without_cluster()
        sampler, built = prepare(here, inputs, samples, part, settings, quiet=quiet)
        rehearse(sampler, built, samples, part, settings, memory_bytes, quiet=quiet)
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
    with (
        Interrupts() as interrupts,
        SampleWriter(path, resume=resume, force=force) as writer,
        prints_on_stderr(ray),
    ):
        sampler, built = prepare(choice, inputs, samples, part, settings, quiet=quiet)

        from hydragen_tree.run import run
        from hydragen_tree.sample.session import session_figures

        def described(some: "list[Prompt]") -> Manifest:
            return Manifest.describe(
                some,
                n=samples,
                settings=settings,
                model=sampler.fingerprint,
                problems=inputs.files,
                ends=sampler.ends(some, settings).record(),
                shard=part,
            )

        def announce(later: "list[Prompt]", read: Inputs) -> None:
            as_requested(ctx, read.asked, settings, samples)  # refuses other settings
            writer.extend(described(later).tasks)

        writer.begin(described(built), given_settings(ctx))
        if writer.complete:
            note(f"{path}: complete, nothing to do", quiet=quiet)
            return 0
        for remark in remarks(choice, sampler, built, writer, settings):
            note(remark, quiet=quiet)

        def keep(drawn: "Sample") -> None:
            with interrupts.held():
                writer.write(drawn)

        arrivals = Arrivals(inputs, sampler, settings, samples, announce)
        try:
            with Progress(
                lambda: sampler.stats,
                writer.tally,
                workers=workers_of(sampler),
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
                    late=None if inputs.stream is None else arrivals.take,
                    keep=keep,
                )
        except Interrupted as interrupted:
            note(_how_to_resume(writer), quiet=quiet)
            return interrupted.exit_code
        figures = session_figures(sampler, built[0])
        if workers := workers_of(sampler):
            figures["workers"] = {each.name: each.stats.samples_done for each in workers}
        with interrupts.held():
            writer.finish(figures)
        if not quiet:
            lines = describe_samples(writer, figures)
            lines += describe_batch(figures) if verbose else []
            show(console(), lines if path is None else [*lines, ("output", str(path))])
    return 0


def _how_to_resume(writer: "SampleWriter") -> str:
    written = count(writer.tally.samples, "sample")
    if writer.path is None or not writer.tally.samples:
        return f"interrupted after {written}"
    return f"interrupted: {written} in {writer.path}; the same command with --resume continues"
