"""`hydragen COMMAND`, and the commands that also have a name of their own: what they share.

Exit codes: 0 done, 1 failed, 2 usage or bad input, 3 partial, 130 interrupted (143 by SIGTERM).

A command's module is imported when the command is asked for, and may import nothing heavy itself:
torch, transformers and pydantic belong inside its functions, so that `--help` is instant.
"""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO, cast

import typer
from typer.core import TyperCommand, TyperGroup

from hydragen_cli.commands import COMMANDS
from hydragen_cli.options import Command, explain, flag_of
from hydragen_tree.errors import HydragenError
from hydragen_tree.threads import limit_spinning

_EPILOG = (
    "Every option can also be set in the environment (HYDRAGEN_MAX_TOKENS for --max-tokens) or in "
    "hydragen.toml, in a table named like the command."
)


class LazyGroup(TyperGroup):
    """Knows its commands by name and imports one when it is needed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """The command of that name, imported now."""
        return load(cmd_name) if cmd_name in COMMANDS else None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without any argument, what there is to be had is shown."""
        return super().parse_args(ctx, args or ["--help"])

    def get_params(self, ctx: Any) -> list[Any]:
        """The group's own flags; False where absent, as typer imports pydantic to look at None."""
        params = super().get_params(ctx)
        for flag in params:
            flag.default = False
        return params


def start(name: str) -> NoReturn:
    """Runs `hydragen`, or a command that has a name of its own, and ends the process."""
    if name == "hydragen":
        _run(_program(), name)
    _run(_with_version(load(name.removeprefix("hydragen-"), add_completion=True)), name)


def _program() -> Any:
    """All commands under one name."""
    app = typer.Typer(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
    app.callback()(_hydragen)
    return typer.main.get_command(app)


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


def _with_version(command: TyperCommand) -> TyperCommand:
    """A command that is a program of its own has the program's flags too."""
    (flag,) = (param for param in _program().params if param.name == "version")
    flag.expose_value = False
    command.params.append(flag)
    return command


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("hydragen-tree")
        except PackageNotFoundError:  # a checkout on the path, or a stripped installation
            number = f"of unknown version, from {Path(__file__).parent}"
        print(f"hydragen-tree {number}")
        raise typer.Exit


def _hydragen(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Draw thousands of candidate programs from a language model, and judge them."""


def _run(command: Any, name: str) -> NoReturn:
    """Runs a command and turns whatever happens into a message and an exit code."""
    limit_spinning()  # before any command loads torch
    if sys.stderr is None:  # closed by the caller; what is said must not end up elsewhere
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    sys.stderr = cast(TextIO, _Messages(sys.stderr))
    try:
        code = command.main(prog_name=name, standalone_mode=False) or 0
        if sys.stdout is not None:
            sys.stdout.flush()
    except SystemExit as error:  # typer's answer to a closed pipe, or to a completion request
        code = 0 if isinstance(error.__context__, BrokenPipeError) else error.code
    except BrokenPipeError:
        code = 0
    except Exception as error:
        code = _report(error, name)
    _forget_closed_pipe()
    sys.exit(code)


class _Messages:
    """stderr; where its disk is full or its reader gone what is said is lost, but not the work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._or_dropped():
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._or_dropped():
            self._stream.flush()

    @contextmanager
    def _or_dropped(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def _report(error: Exception, name: str) -> int:
    """Prints one message for an error; returns its exit code."""
    debug = os.environ.get("HYDRAGEN_DEBUG", "0") not in ("", "0")
    if debug:
        traceback.print_exception(error)
    if isinstance(error, typer.TyperException):
        message = f"{explain(error)}\nTry '{name} --help' for help."
        code = error.exit_code
    elif isinstance(error, HydragenError):
        message, code = error.worded(flag_of), error.exit_code
    else:
        hint = "" if debug else "; HYDRAGEN_DEBUG=1 shows where"
        message, code = f"unexpected {type(error).__name__}: {error}{hint}", 1
    print(f"{name}: {message}", file=sys.stderr)
    return code


def _forget_closed_pipe() -> None:
    """Keeps the interpreter from complaining, when it exits, about a pipe nobody reads."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
