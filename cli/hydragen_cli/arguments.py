"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from hydragen_cli.options import FILE_NAME, PREFIX, read_layers
from hydragen_tree.attention.table import CHOICES

_MODEL = "Model"
_PROMPTS = "Prompts"
_SAMPLING = "Sampling"
_OUTPUT = "Output"
_OTHER = "Everything else"

Problems = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PROBLEM...",
        show_default=False,
        help="Problem files, directories or globs; - reads YAML from stdin.",
    ),
]
Samples = Annotated[
    int, typer.Option("-n", "--samples", metavar="N", min=1, help="Samples for each problem.")
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        rich_help_panel=_OUTPUT,
        help="JSON lines; a manifest is kept beside. Default: stdout.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", rich_help_panel=_OUTPUT, help="Continue the output; N may have grown."
    ),
]
Force = Annotated[
    bool, typer.Option("--force", rich_help_panel=_OUTPUT, help="Start the output anew.")
]
ShardOf = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/K",
        rich_help_panel=_OUTPUT,
        help="Draw only part I of K equal parts of the run (1/K to K/K), each into its own file; "
        "hydragen merge joins them.",
    ),
]
First = Annotated[
    int | None,
    typer.Option(
        "--first",
        metavar="INDEX",
        rich_help_panel=_OUTPUT,
        help="Draw only samples with this sample_index or a greater one. N stays the whole run's.",
    ),
]
Last = Annotated[
    int | None,
    typer.Option(
        "--last",
        metavar="INDEX",
        rich_help_panel=_OUTPUT,
        help="Draw only samples with this sample_index or a smaller one; the greatest is N - 1.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        rich_help_panel=_OUTPUT,
        help="Print the settings with their sources, the prompts, and what the run would share and "
        "need. Loads no weights.",
    ),
]
Prompts = Annotated[
    str | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        rich_help_panel=_PROMPTS,
        help='Plain prompts instead of problems: JSON lines {"prompt": text, chat messages or '
        'token ids, "task_id": name}, or requests of OpenAI\'s batch format; - reads stdin, line '
        "by line as they come.",
    ),
]
Chat = Annotated[
    bool,
    typer.Option("--chat", rich_help_panel=_PROMPTS, help="Use the tokenizer's chat template."),
]
ChatOption = Annotated[
    list[str] | None,
    typer.Option(
        "--chat-option",
        metavar="NAME=VALUE",
        rich_help_panel=_PROMPTS,
        help="A switch of the chat template, as enable_thinking=false; may be given several times.",
    ),
]
Variants = Annotated[
    int | None,
    typer.Option(
        "--variants",
        metavar="V",
        rich_help_panel=_PROMPTS,
        help="Few-shot variants a problem, instead of what its file says.",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="NAME",
        rich_help_panel=_MODEL,
        help="A directory, a GGUF file or a hub id; tiny is the demonstration model that ships.",
    ),
]
Revision = Annotated[
    str | None,
    typer.Option("--revision", metavar="REV", rich_help_panel=_MODEL, help="Of the hub model."),
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option("--dtype", metavar="DTYPE", rich_help_panel=_MODEL, help="Of the weights."),
]
KvDtype = Annotated[
    Literal["auto", "fp8"],
    typer.Option(
        "--kv-dtype",
        metavar="DTYPE",
        rich_help_panel=_MODEL,
        help="Of keys and values; fp8 needs half the memory of 16 bits, and is not exact.",
    ),
]
Weights = Annotated[
    Literal["auto", "fp8", "int8", "bfloat16"],
    typer.Option(
        "--weights",
        metavar="DTYPE",
        rich_help_panel=_MODEL,
        help="Of linear layers; fp8 rounds them and their inputs to 8 bits, which is faster from "
        "some 200 rows on, and not exact. On a CPU int8 is faster with any number of rows, and "
        "bfloat16 less fast and closer to exact.",
    ),
]
WeightsMemory = Annotated[
    str | None,
    typer.Option(
        "--weights-memory",
        metavar="SIZE",
        rich_help_panel=_MODEL,
        help="For all weights of a stack, which hydragen stack makes, such as 3GiB: as many of its "
        "blocks as fit; fewer are further from the model. Default: all.",
    ),
]
LongPrompt = Annotated[
    Literal["refuse", "homer"],
    typer.Option(
        "--long-prompt",
        metavar="HOW",
        rich_help_panel=_MODEL,
        help="Of prompts beyond the model's context; homer leaves of each what its end attends to "
        "most, half a context, once for all samples, and is not exact.",
    ),
]
Device = Annotated[
    str,
    typer.Option("--device", metavar="DEVICE", rich_help_panel=_MODEL, help="cpu, cuda, mps, ..."),
]
Devices = Annotated[
    str | None,
    typer.Option(
        "--devices",
        metavar="LIST",
        rich_help_panel=_MODEL,
        help="Draw with a process on each of these: all GPUs of the machine, 0,1,3, or cpu,cpu. "
        "One that is lost hands its samples to the others. Default: one process, on --device.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        rich_help_panel=_MODEL,
        help="Draw with the GPUs of a Ray cluster: auto for the one of this machine or of "
        "RAY_ADDRESS, as in a submitted job; local to start one here; or an address.",
    ),
]
RayWorkers = Annotated[
    int | None,
    typer.Option(
        "--ray-workers",
        metavar="N",
        rich_help_panel=_MODEL,
        help="Actors that draw. Default: one a GPU of the cluster, or a processor if it has none.",
    ),
]
TensorParallel = Annotated[
    int,
    typer.Option(
        "--tensor-parallel",
        metavar="N",
        min=1,
        rich_help_panel=_MODEL,
        help="N devices have the model together, each its part of every layer: for models that are "
        "too large for one. With --devices, groups of N.",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        rich_help_panel=_MODEL,
        help="For keys and values on each device, such as 8GiB. Default: measured.",
    ),
]
MaxRows = Annotated[
    int | None,
    typer.Option(
        "--max-rows",
        metavar="ROWS",
        rich_help_panel=_MODEL,
        help="Rows of the batch at the most. Default: by device.",
    ),
]
Attention = Annotated[
    str,
    typer.Option(
        "--attention",
        metavar="BACKEND",
        rich_help_panel=_MODEL,
        help=f"One of {CHOICES}.",
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        rich_help_panel=_MODEL,
        help="On a GPU, compile the model's layers: half a minute once, then seconds from a cache. "
        "Of use for long runs of models whose norms and rotation no kernel here computes.",
    ),
]
Drafts = Annotated[
    str,
    typer.Option(
        "--drafts",
        metavar="WHEN",
        rich_help_panel=_MODEL,
        help="Several tokens of a sample in one step, where others have drawn the same before: "
        "auto where the host takes the steps, rows are few and it pays; on in a GPU's captured "
        "steps as well; or off. Samples are the same.",
    ),
]
BatchInvariant = Annotated[
    bool,
    typer.Option(
        "--batch-invariant",
        rich_help_panel=_MODEL,
        help="Sums in one order: a sample and its log-probabilities are the same, bit for bit, "
        "whatever N, the batch, memory, other problems, shards or a resume are. Slower; refused "
        "where it would not hold.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        metavar="SEED",
        rich_help_panel=_SAMPLING,
        help="Equal seeds give equal random numbers, whatever N and the batch are; in float32, "
        "and with --batch-invariant, equal samples too.",
    ),
]
Temperature = Annotated[
    float,
    typer.Option(
        "-t",
        "--temperature",
        metavar="T",
        rich_help_panel=_SAMPLING,
        help="Divides the logits; 0 always takes the best token.",
    ),
]
TopK = Annotated[
    int,
    typer.Option(
        "--top-k", metavar="K", rich_help_panel=_SAMPLING, help="Keep the K best; 0 keeps all."
    ),
]
TopP = Annotated[
    float,
    typer.Option(
        "--top-p",
        metavar="P",
        rich_help_panel=_SAMPLING,
        help="Keep the best tokens that together are this probable.",
    ),
]
MinP = Annotated[
    float,
    typer.Option(
        "--min-p",
        metavar="P",
        rich_help_panel=_SAMPLING,
        help="Keep tokens at least this fraction as probable as the best.",
    ),
]
MaxTokens = Annotated[
    int,
    typer.Option(
        "--max-tokens", metavar="N", rich_help_panel=_SAMPLING, help="Tokens a sample at most."
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        "--stop",
        metavar="TEXT",
        rich_help_panel=_SAMPLING,
        help="End a sample here, besides at the template's own stop; may be repeated. \\n is a "
        "newline.",
    ),
]
StopToken = Annotated[
    list[str] | None,
    typer.Option(
        "--stop-token",
        metavar="TOKEN",
        rich_help_panel=_SAMPLING,
        help="End a sample at this token, named by text or id, as at the model's own end tokens; "
        "may be repeated.",
    ),
]
Logprobs = Annotated[
    bool,
    typer.Option(
        "--logprobs",
        rich_help_panel=_SAMPLING,
        help="Also write each token's id and log-probability.",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", rich_help_panel=_OUTPUT, help="Print JSON, with all there is.")
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar=PREFIX + "CONFIG",
        show_envvar=False,
        is_eager=True,
        callback=read_layers,
        rich_help_panel=_OTHER,
        help=f"TOML file with options, in a table for each command. Default: ./{FILE_NAME}",
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "-v",
        "--verbose",
        rich_help_panel=_OTHER,
        help="First say which settings hold, and where each comes from; so does --dry-run.",
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("-q", "--quiet", rich_help_panel=_OTHER, help="Say nothing but errors."),
]
