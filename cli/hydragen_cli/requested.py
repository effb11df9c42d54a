"""What the requests of a batch ask for, where no option says otherwise."""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import typer

from hydragen_cli.effective import set_by_requests
from hydragen_cli.options import flag_of
from hydragen_tree.errors import InputError
from hydragen_tree.settings import SamplingSettings

_PARAMETERS = {"n": "samples", "stop_tokens": "stop_token"}


def as_requested(
    ctx: typer.Context,
    asked: Mapping[str, Mapping[Hashable, int]],
    settings: SamplingSettings,
    n: int,
) -> tuple[SamplingSettings, int]:
    """The settings of a run and its samples a prompt.

    Options, variables and configuration files come before what requests say.

    Args:
        ctx: of the command.
        asked: by setting, the values of the requests and the first line with each.
        settings: as the options have them.
        n: as the option has it.

    Raises:
        InputError: requests differ in what a run has one of, or ask for what cannot be.
    """
    found: dict[str, Any] = {}
    for name, values in asked.items():
        parameter = _PARAMETERS.get(name, name)
        source = ctx.get_parameter_source(parameter)
        if source is not None and source.name != "DEFAULT":
            continue
        (value, line), *others = values.items()
        if others:
            other, where = others[0]
            raise InputError(
                f"line {where} asks for {name} {_said(other)}, line {line} for {_said(value)}: a "
                f"run has one; {flag_of(name)} decides, or a file for each",
                setting="prompts",
            )
        found[name] = value
        set_by_requests(ctx, parameter, value)
    n = found.pop("n", n)
    if n < 1:
        raise InputError("expected an integer >= 1", setting="n", value=n)
    return replace(settings, **found), n


def _said(value: Hashable) -> str:
    return "none" if value is None else repr(value)
