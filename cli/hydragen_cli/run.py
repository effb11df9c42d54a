"""`hydragen run`: from problems to an answer, sampled and judged at once, in one folder."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from hydragen_cli import arguments, judging
from hydragen_cli.console import console, count, note, prints_on_stderr, show
from hydragen_cli.effective import given_settings
from hydragen_cli.inputs import Inputs
from hydragen_cli.interrupts import Interrupted, Interrupts
from hydragen_cli.judging import open_judge
from hydragen_cli.options import (
    config_files,
    flag_of,
    parse_bytes,
    parse_chat_options,
    parse_ks,
    parse_seconds,
    unescape,
)
from hydragen_cli.outputs import check_outputs, files_of_model
from hydragen_cli.run_view import RunView
from hydragen_cli.sampling import (
    ModelChoice,
    describe_batch,
    describe_samples,
    prepare,
    rehearse,
    remarks,
)
from hydragen_tree.errors import InputError
from hydragen_tree.settings import SamplingSettings

if TYPE_CHECKING:
    from hydragen_tree.passk.summary import Summary
    from hydragen_tree.solving import RunFolder, Solving
    from hydragen_tree.solving.gathering import Gathered

_PARTIAL = 3
_DEFAULT = SamplingSettings()
_RUNS = Path("runs")
_STOPPING = "Stopping before N samples"


def run(
    ctx: typer.Context,
    problems: Annotated[
        list[str],
        typer.Argument(
            metavar="PROBLEM...",
            help="Problem files, directories, globs; packages and archives of them; data sets such "
            "as HumanEval.jsonl.gz, which are imported; - reads YAML from stdin.",
        ),
    ],
    samples: arguments.Samples = 100,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            rich_help_panel="Output",
            help="The run's folder; one that is there is gone on with, and N may have grown. "
            "Default: in runs/, named after the problems and the model.",
        ),
    ] = None,
    force: arguments.Force = False,
    until_solved: Annotated[
        int | None,
        typer.Option(
            "--until-solved",
            metavar="C",
            rich_help_panel=_STOPPING,
            help="Draw no more samples of a problem once C are right.",
        ),
    ] = None,
    until_width: Annotated[
        float | None,
        typer.Option(
            "--until-width",
            metavar="W",
            rich_help_panel=_STOPPING,
            help="Draw no more of a problem once the 95 % interval of its pass@1 is W wide, such "
            "as 0.02.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="TIME",
            rich_help_panel=_STOPPING,
            help="Draw no sample after so long (2h, 90m); those that are there are judged.",
        ),
    ] = None,
    dry_run: arguments.DryRun = False,
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
    k: judging.Ks = None,
    workers: judging.Workers = None,
    sandbox: judging.Sandbox = "auto",
    unsandboxed: judging.Unsandboxed = False,
    no_cache: judging.NoCache = False,
    python: judging.Python = None,
    language: judging.Language = "python",
    verbose: arguments.Verbose = False,
    quiet: arguments.Quiet = False,
    config: arguments.Config = None,
) -> int:
    """Draw N samples for each problem and judge them meanwhile: pass@k, all of it in one folder.

    The same command goes on with a run that was interrupted, or killed.
    """
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
    ks, options = parse_ks(k), parse_chat_options(chat_option)
    budget_s = parse_seconds("budget", budget)
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
        parse_bytes("memory_bytes", memory),
        max_rows,
    )

    from hydragen_tree.judge.languages import find_language
    from hydragen_tree.passk.stopping import Stopping
    from hydragen_tree.solving.folder import RunFolder
    from hydragen_tree.solving.gathering import gather

    find_language(language)
    rule = Stopping(samples, until_solved, until_width)
    folder = RunFolder(output or _RUNS / _name_of(problems, model))
    if dry_run:
        with TemporaryDirectory() as scratch:
            gathered = gather(problems, Path(scratch) / folder.problems.name)
            _say(gathered, quiet=quiet)
            inputs = Inputs(gathered.problems, (), chat, variants, options)
            here = choice.without_cluster()
            sampler, built = prepare(here, inputs, samples, None, settings, quiet=quiet)
        rehearse(sampler, built, samples, None, settings, choice.memory_bytes, quiet=quiet)
        return 0

    from hydragen_tree.model.read_ahead import read_ahead

    read_ahead(model)
    _make(folder)
    try:
        gathered = gather(problems, folder.problems, force=force)
        _say(gathered, quiet=quiet)
        inputs = Inputs(gathered.problems, (), chat, variants, options)
        _check_outputs(folder, inputs, model, config)
        with (
            prints_on_stderr(ray),
            open_judge(
                workers=workers,
                sandbox=sandbox,
                unsandboxed=unsandboxed,
                cache=not no_cache,
                python=python,
                quiet=quiet,
                ray=ray,
            ) as judge,
            Interrupts() as interrupts,
        ):
            sampler, built = prepare(choice, inputs, samples, None, settings, quiet=quiet)

            from hydragen_tree.solving import Solving

            with Solving(
                folder,
                gathered.problems,
                built,
                rule,
                sampler=sampler,
                judge=judge,
                settings=settings,
                language=language,
                options=given_settings(ctx),
                force=force,
                say=note,
                worded=lambda error: error.worded(flag_of),
            ) as solving:
                if not solving.writer.complete:
                    for remark in remarks(choice, sampler, built, solving.writer, settings):
                        note(remark, quiet=quiet)
                view = RunView(
                    lambda: sampler.stats,
                    solving.writer.tally,
                    solving.board,
                    lambda: solving.most_samples,
                    samples,
                    in_rounds=rule.looks_at_verdicts or budget_s is not None,
                    budget_s=budget_s,
                    quiet=quiet,
                )
                code = 0
                try:
                    with view:
                        solving.run(interrupts.held, budget_s)
                except Interrupted as interrupted:
                    code = interrupted.exit_code
                summary = solving.finish(ks)
                _report(solving, summary, folder, quiet=quiet or bool(code), verbose=verbose)
                if code:
                    note(_how_to_go_on(solving), quiet=quiet)
                    return code
                solving.report()
                partial = bool(gathered.refused) or solving.grading.faults.total() > 0
                return _PARTIAL if partial else 0
    finally:
        with suppress(OSError):  # where nothing came of it
            folder.path.rmdir()


def _name_of(problems: Sequence[str], model: str) -> str:
    """`problems-tiny`: what a run is called after its problems and its model."""
    first = Path(problems[0])
    if len(problems) > 1 and len({Path(name).parent for name in problems}) == 1:
        first = first.parent.resolve()
    stem = "stdin" if str(first) == "-" else (first.resolve().name.split(".")[0] or "problems")
    of_model = Path(model).expanduser().name.removesuffix(".gguf")
    return re.sub(r"[^\w.+-]+", "-", f"{stem}-{of_model}").strip("-.")


def _make(folder: "RunFolder") -> None:
    """Makes the run's folder.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "is no folder" if folder.path.exists() else f"cannot be made: {error.strerror}"
        raise InputError(why, setting="output", value=folder.path) from error


def _say(gathered: "Gathered", *, quiet: bool) -> None:
    """What importing left out."""
    for message in gathered.refused:
        note(f"{message}; it is left out")
    for message in gathered.notes:
        note(message, quiet=quiet)


def _check_outputs(folder: "RunFolder", inputs: Inputs, model: str, config: Path | None) -> None:
    """Makes sure that nothing that is read is going to be written."""
    from hydragen_tree.sample.manifest import manifest_path

    configuration = [("the configuration", file) for file in config_files(config)]
    read = [*inputs.paths(), *files_of_model(model), *configuration]
    results = (folder.verdicts, folder.summary, folder.report)
    for path in (folder.samples, manifest_path(folder.samples), *results):
        check_outputs({"output": path}, read)


def _report(
    solving: "Solving", summary: "Summary", folder: "RunFolder", *, quiet: bool, verbose: bool
) -> None:
    """Prints the table, the figures, and where everything is."""
    from hydragen_tree.passk.table import render_summary

    for kind, number in solving.grading.faults.items():
        more = solving.grading.unnamed[kind]
        note(f"{kind}: {number:,}" + (f", {more:,} of them not named above" if more else ""))
    if quiet:
        return
    render_summary(summary, console())
    board, writer = solving.board, solving.writer
    solved = f"{board.solved:,} of {count(len(board.problems), 'problem')} solved"
    facts = [("solved", f"{solved}, {_accepted(summary):,} of {board.judged:,} samples right")]
    if solving.session and solving.session["tokens_sampled"]:
        batch = describe_batch(solving.session) if verbose else []
        facts = [*describe_samples(writer, solving.session), *batch, *facts]
    if saved := solving.figures.get("saved"):
        share = saved["tokens"] / max(saved["tokens_of_n"], 1)
        text = f"{saved['samples']:,} samples, some {count(saved['tokens'], 'token')}"
        against = f"{share:.0%} of {solving.figures['n']:,} samples for every problem"
        facts.append(("not drawn", f"{text}: {against}"))
    if solving.is_out_of_time:
        facts.append(("budget", "used up; the same command goes on"))
    show(console(), [*facts, ("output", f"{folder.path}/")])


def _accepted(summary: "Summary") -> int:
    return sum(problem.accepted for problem in summary.problems)


def _how_to_go_on(solving: "Solving") -> str:
    drawn = count(solving.writer.tally.samples, "sample")
    judged = f"{solving.board.judged:,} of them judged"
    return f"interrupted: {drawn} in {solving.folder.path}/, {judged}; the same command goes on"
