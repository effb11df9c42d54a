"""`hydragen stack`: a model taken apart into blocks, of which as many are loaded as fit."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hydragen_cli import arguments
from hydragen_cli.console import console, count, note, prepare_libraries, show
from hydragen_cli.options import config_files
from hydragen_cli.outputs import check_outputs, files_of_model, what_it_covers
from hydragen_tree.errors import InputError, OutputError
from hydragen_tree.units import size

if TYPE_CHECKING:
    import torch

    from hydragen_tree.model.stacking import Ranked


def stack(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="As --model of the other commands takes it."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="The stack's directory.")
    ],
    text: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            help="Text like what the model will read and write, to calibrate by; may be repeated.",
        ),
    ],
    rows: Annotated[
        int, typer.Option(min=1, help="Rows of text at the most, from all files alike.")
    ] = 16,
    row_tokens: Annotated[int, typer.Option(min=2, help="Tokens of a row.")] = 512,
    blocks: Annotated[
        int, typer.Option(min=1, help="Blocks of each layer, each of about 1.1 bits a weight.")
    ] = 8,
    rank: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of the low-rank parts. Default: by a layer's size, 16 for 4096 x 4096."
        ),
    ] = None,
    revision: arguments.Revision = None,
    device: arguments.Device = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    quiet: arguments.Quiet = False,
    config: arguments.Config = None,
) -> None:
    """Take a model apart into a stack of blocks, after BitStack; needs no training.

    --model STACK --weights-memory SIZE then loads as many blocks as fit, all layers alike in worth.
    """
    read = [*files_of_model(model), *(("a text", file) for file in text)]
    read += [("the configuration", file) for file in config_files(config)]
    check_outputs({}, read)
    target = output / "model.safetensors"
    if what := what_it_covers(output, read) or what_it_covers(target, read):
        raise InputError(f"is {what}", setting="output", value=output)
    if output.exists() and not output.is_dir():
        raise InputError("is no directory", setting="output", value=output)
    if not force and output.is_dir() and any(output.iterdir()):
        raise InputError(
            "is not empty; name another directory, or use --force", setting="output", value=output
        )
    prepare_libraries(model, quiet=quiet)

    import torch

    from hydragen_tree.model.calibration import text_rows
    from hydragen_tree.model.loading import find_model, load_tokenizer, load_weights
    from hydragen_tree.model.stacking import stack_model, write_model

    source = find_model(model, revision=revision, dtype="float32", device=device)
    if source.stack is not None:
        raise InputError("is a stack already; name the model that it was made of", setting="model")
    tokenizer = load_tokenizer(source)
    share = -(-rows // len(text))
    given = [text_rows(tokenizer, _read(file), row_tokens, share) for file in text]
    calibration = torch.cat(given)[:rows]
    note(
        f"calibrating by {count(len(calibration), 'row')} of {row_tokens} tokens, then taking "
        "layers apart",
        quiet=quiet,
    )
    weights = load_weights(source)
    ranked = stack_model(weights, calibration, blocks=blocks, rank=rank)
    if not ranked:
        raise InputError(
            "has no linear layers that are taken apart", setting="model", value=source.name
        )
    stored = getattr(source.config, "dtype", None) or torch.float32
    try:
        write_model(output, weights, tokenizer, ranked, stored)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror or error}") from error
    if not quiet:
        show(console(), _facts(output, ranked, stored))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(error.strerror or str(error), setting="text", value=file) from None
    except UnicodeDecodeError:
        raise InputError("is not UTF-8 text", setting="text", value=file) from None


def _facts(folder: Path, ranked: "Sequence[Ranked]", dtype: "torch.dtype") -> list[tuple[str, str]]:
    from hydragen_kernels.inputs import dtype_name
    from hydragen_tree.model.stack_files import choose_part

    part = choose_part(str(folder), str(folder), dtype)
    sizes = [one.block.n_bytes for one in ranked]
    numbers = sum(one.block.left.shape[0] * one.block.right.shape[0] for one in ranked)
    least, most = size(part.least_bytes), size(part.n_bytes)
    return [
        ("stack", f"{folder}: {count(len({one.layer for one in ranked}), 'layer')}"),
        ("blocks", f"{part.of:,}, of {size(min(sizes))} to {size(max(sizes))}"),
        ("bits", f"{8 * sum(sizes) / numbers:.2f} a weight and block"),
        ("memory", f"{least} to {most} in {dtype_name(dtype)}, of --weights-memory"),
    ]
