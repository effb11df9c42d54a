"""Which settings hold, and where each comes from: option, variable, file, request, or default."""

from dataclasses import dataclass
from typing import Any

import typer

from hydragen_cli.console import console

ORIGINS = "hydragen.origins"  # of a context: variables and keys of files, by option
_REQUESTED = "hydragen.requested"  # of a context: requests that set an option, by its name
_DEFAULT, _OPTION = "default", "option"


@dataclass(frozen=True, slots=True)
class Effective:
    """A setting that holds.

    Args:
        flag: as the command line names it.
        value: for people.
        source: `option`, a variable, a file with table and key, requests, or `default`.
    """

    flag: str
    value: str
    source: str


def origin_of(ctx: typer.Context, name: str | None) -> str | None:
    """The variable, key or requests that set an option, unless a flag did."""
    requested: str | None = ctx.meta.get(_REQUESTED, {}).get(name)
    if requested:
        return requested
    source = ctx.get_parameter_source(name) if name else None
    if name is None or source is None or source.name != "DEFAULT_MAP":
        return None
    origin: str | None = ctx.meta.get(ORIGINS, {}).get(name)
    return origin


def set_by_requests(ctx: typer.Context, name: str, value: Any) -> None:
    """Has an option the value that the requests of `--prompts` ask for."""
    ctx.params[name] = value
    ctx.meta.setdefault(_REQUESTED, {})[name] = f"requests in {ctx.params['prompts']}"


def effective_settings(ctx: typer.Context) -> list[Effective]:
    """All options of a command that runs, in its order."""
    return [
        Effective(_flag(option), _text(ctx.params.get(option.name)), _source(ctx, option))
        for option in ctx.command.params
        if option.param_type_name == "option" and option.expose_value
    ]


def given_settings(ctx: typer.Context) -> dict[str, list[str]]:
    """Those that are no defaults: flag to value and source, for the record."""
    return {
        each.flag: [each.value, each.source]
        for each in effective_settings(ctx)
        if each.source != _DEFAULT
    }


def show_if_asked(ctx: typer.Context) -> None:
    """Prints all options of a command that runs, with their sources: with -v, or in a dry run."""
    asked = ctx.params.get("verbose") or ctx.params.get("dry_run")
    if asked and not ctx.params.get("quiet"):
        _show_settings(ctx)


def _show_settings(ctx: typer.Context) -> None:
    from rich.table import Table
    from rich.text import Text

    terminal, settings = console(), effective_settings(ctx)
    if not terminal.is_terminal:
        wide = max(len(each.flag) for each in settings)
        values = max(len(each.value) for each in settings if len(each.value) <= 40)
        for each in settings:
            line = f"{each.flag:<{wide}}  {each.value:<{values}}  {each.source}"
            terminal.print(line, markup=False, soft_wrap=True)
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    grid.add_column(overflow="fold")
    for each in settings:
        dim = "dim" if each.source == _DEFAULT else ""
        grid.add_row(each.flag, Text(each.value, dim), Text(each.source, dim or "bold"))
    terminal.print(grid)


def _flag(option: Any) -> str:
    """The long name of an option."""
    return str(max(option.opts, key=len))


def _source(ctx: typer.Context, option: Any) -> str:
    source = ctx.get_parameter_source(option.name)
    name = "" if source is None else source.name
    if name == "COMMANDLINE":
        return _OPTION
    if name == "ENVIRONMENT":
        return str(option.envvar)
    return origin_of(ctx, option.name) or _DEFAULT


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(map(repr, value)) or "-"
    if isinstance(value, float):
        return f"{value:g}"
    return "-" if value is None else str(value)
