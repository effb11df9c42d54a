"""The commands: what each is called, and the function behind it.

A module is imported when its command is asked for, and may import nothing heavy itself: torch,
transformers and pydantic belong inside the functions, so that `--help` is instant.
"""

from importlib import import_module

import typer
from typer.core import TyperCommand

from hydragen_cli.options import Command

COMMANDS = {
    "sample": "hydragen_cli.sample:sample",
    "plan": "hydragen_cli.plan:plan",
    "schema": "hydragen_cli.schema:schema",
    "bench": "hydragen_cli.bench:bench",
    "eval": "hydragen_cli.eval:evaluate",
    "check": "hydragen_cli.check:check",
    "import": "hydragen_cli.convert:import_",
    "export": "hydragen_cli.convert:export",
}

_EPILOG = (
    "Every option can also be set in the environment (HYDRAGEN_MAX_TOKENS for --max-tokens) or in "
    "hydragen.toml, in a table named like the command."
)


def load(name: str, *, add_completion: bool = False) -> TyperCommand:
    """Imports one command.

    Args:
        name: a key of `COMMANDS`.
        add_completion: give it the options that install shell completion.
    """
    module, function = COMMANDS[name].split(":")
    app = typer.Typer(add_completion=add_completion)
    settings = {"help_option_names": ["-h", "--help"]}
    app.command(name, cls=Command, context_settings=settings, epilog=_EPILOG)(
        getattr(import_module(module), function)
    )
    command = typer.main.get_command(app)
    assert isinstance(command, TyperCommand)
    return command
