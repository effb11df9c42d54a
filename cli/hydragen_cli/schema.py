"""`hydragen schema`: the JSON Schema of problem files, for editors."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from hydragen_cli.arguments import Config
from hydragen_cli.options import config_files
from hydragen_cli.outputs import check_outputs, file_or_stdout, write_text


def schema(
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write to a file, not to stdout."),
    ] = None,
    config: Config = None,
) -> None:
    """Print the JSON Schema of problem files, so that editors complete and check them."""
    from hydragen_tree.problem.types import problem_json_schema

    output = file_or_stdout(output)
    check_outputs(
        {"output": output}, [("the configuration", file) for file in config_files(config)]
    )
    text = json.dumps(problem_json_schema(), indent=2) + "\n"
    if output is None:
        sys.stdout.write(text)
        return
    write_text("output", output, text)
