"""`hydragen schema`: the JSON Schema of problem files, for editors."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from hydragen_cli.arguments import Config
from hydragen_tree.errors import InputError


def schema(
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write to a file, not to stdout."),
    ] = None,
    config: Config = None,
) -> None:
    """Print the JSON Schema of problem files, so that editors complete and check them."""
    from hydragen_tree.problem.types import problem_json_schema

    text = json.dumps(problem_json_schema(), indent=2) + "\n"
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror} (--output)") from error
