"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from hydragen_cli.options import FILE_NAME, PREFIX, read_layers

_MODEL = "Model"
_PROMPTS = "Prompts"
_OTHER = "Everything else"

Problems = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PROBLEM...",
        show_default=False,
        help="Problem files, directories or globs; - reads YAML from stdin.",
    ),
]
Prompts = Annotated[
    str | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        rich_help_panel=_PROMPTS,
        help='Plain prompts instead of problems: JSON lines {"prompt": text, chat messages or '
        'token ids, "task_id": name}; - reads stdin.',
    ),
]
Chat = Annotated[
    bool,
    typer.Option("--chat", rich_help_panel=_PROMPTS, help="Use the tokenizer's chat template."),
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
        help="A directory or a hub id; tiny is the demonstration model that ships.",
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
Device = Annotated[
    str,
    typer.Option("--device", metavar="DEVICE", rich_help_panel=_MODEL, help="cpu, cuda, mps, ..."),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        rich_help_panel=_MODEL,
        help="For keys and values, such as 8GiB. Default: measured.",
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
Quiet = Annotated[
    bool,
    typer.Option("-q", "--quiet", rich_help_panel=_OTHER, help="Say nothing but errors."),
]
