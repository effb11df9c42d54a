"""`hydragen models`: which architectures run, and why the others do not."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from hydragen_cli import arguments
from hydragen_cli.console import console, note, prepare_libraries, show
from hydragen_tree.errors import InputError


def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Those whose name has one of these in it."),
    ] = None,
    as_json: arguments.AsJson = False,
    config: arguments.Config = None,
) -> None:
    """List the architectures of the installed transformers: exact, or refused and why.

    By their default configurations: `hydragen plan --model` says it of a model. Those that run are
    compared with transformers' own attention when this program is tested: prefill, trees, forks,
    decode steps.
    """
    prepare_libraries("tiny", quiet=as_json)

    from transformers import __version__

    from hydragen_tree.model.architectures import architectures

    found = architectures()
    if names:
        found = [one for one in found if any(name.lower() in one.kind for name in names)]
        if not found:
            raise InputError(f"no architecture of transformers {__version__} is called so")
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=1))
        return

    found.sort(key=lambda one: one.why_not is not None)
    show(console(stdout=True), [(one.kind, str(one)) for one in found])
    exact = sum(one.why_not is None for one in found)
    note(f"{exact} exact, {len(found) - exact} refused, of transformers {__version__}")
