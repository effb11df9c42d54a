"""Where an option's value comes from: flag > environment > TOML file > default.

Every option `--some-name` of every command can also be set by the environment variable
HYDRAGEN_SOME_NAME, or in a TOML file by the key `some-name` in the table named like the command:

    [sample]
    model = "models/coder-7b"
    max-tokens = 512

The file is `--config FILE` or else `hydragen.toml` in the working directory; what it does not say
is looked up in `hydragen.toml` in the user's configuration directory.
"""

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from hydragen_cli.commands import COMMANDS
from hydragen_cli.console import note
from hydragen_cli.effective import ORIGINS, origin_of, show_if_asked
from hydragen_cli.interrupts import Interrupted
from hydragen_tree.errors import InputError

FILE_NAME = "hydragen.toml"
PREFIX = "HYDRAGEN_"
_FLAGS = {
    "n": "-n",
    "k": "-k",
    "memory_bytes": "--memory",
    "path": "--output",
    'sandbox="rlimits"': "--unsandboxed",
    "stop_tokens": "--stop-token",
    "chat_options": "--chat-option",
}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
_NO_OPTIONS = {"DEBUG"}  # read elsewhere
_UNITS = {"": 1, **{f"{p}B": 1000**i for i, p in enumerate(("", "K", "M", "G", "T"))}}
_UNITS |= {f"{p}IB": 1024**i for i, p in enumerate(("K", "M", "G", "T"), start=1)}


class Command(TyperCommand):
    """A command that knows where each value came from, and says so in complaints and if asked."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; an InputError about a setting gains its origin."""
        if self.name != "sample" or not ctx.params.get("prompts"):
            show_if_asked(ctx)  # else once it has read what requests ask for
        try:
            return super().invoke(ctx)
        except Interrupted as interrupted:
            note("interrupted")
            raise typer.Exit(interrupted.exit_code) from None
        except InputError as error:
            flag = error.setting and flag_of(error.setting)
            names = [p.name for p in self.params if flag in p.opts]
            if origin := origin_of(ctx, names[0] if names else None):
                error.args += (f" (set by {origin})",)
            raise


def flag_of(setting: str) -> str:
    """The flag by which the command line knows a setting of the library: `--max-tokens`."""
    return _FLAGS.get(setting, f"--{setting.replace('_', '-')}")


def explain(error: typer.TyperException) -> str:
    """A usage error as one sentence that names the flag, the variable or the file's key."""
    ctx, param = getattr(error, "ctx", None), getattr(error, "param", None)
    origin = origin_of(ctx, param.name) if ctx and param else None
    error.message = error.message.removeprefix("Value error, ")  # pydantic's, passed on by typer
    return f"{origin}: {error.message}" if origin else error.format_message()


def parse_bytes(setting: str, text: str | None) -> int | None:
    """Bytes from `8GiB`, `500MB` or a plain number.

    Raises:
        InputError: it is neither.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip(), re.IGNORECASE)
    if match is None or match[2].upper() not in _UNITS:
        raise InputError(
            "expected a size such as 8GiB, 500MB or 1000000", setting=setting, value=text
        )
    return int(float(match[1]) * _UNITS[match[2].upper()])


def parse_seconds(setting: str, text: str | None) -> float | None:
    """Seconds from `2h`, `90m`, `1h30m`, `45s` or a plain number of seconds.

    Raises:
        InputError: it is none of these.
    """
    if text is None:
        return None
    number = r"(\d+(?:\.\d+)?)"
    match = re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s?)?", text.replace(" ", ""))
    parts = [float(part or 0) for part in match.groups()] if match else []
    if not any(parts):
        raise InputError("expected a time such as 2h, 90m or 1h30m", setting=setting, value=text)
    hours, minutes, seconds = parts
    return 3600 * hours + 60 * minutes + seconds


def parse_ks(text: str | None) -> list[int]:
    """The k of pass@k in `1,10,100`; none where nothing is given.

    Raises:
        InputError: they are no whole numbers from 1.
    """
    if text is None:
        return []
    try:
        ks = [int(word) for word in text.split(",")]
    except ValueError:
        ks = []
    if not ks or min(ks) < 1:
        raise InputError(
            "expected integers >= 1, with commas between them", setting="k", value=text
        )
    return ks


def parse_chat_options(texts: Sequence[str] | None) -> dict[str, Any]:
    """Switches of a chat template: `enable_thinking=false`, `reasoning_effort=low`.

    Values are what JSON takes them for, else text.

    Raises:
        InputError: one is no name with a value.
    """
    options: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(
                "expected NAME=VALUE, as enable_thinking=false", setting="chat_options", value=text
            )
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def unescape(text: str) -> str:
    r"""The text that a shell's user means: `\n`, `\t` and `\r` are what Python takes them for.

    A backslash before them is written twice; any other one stands for itself.
    """
    return re.sub(r"\\([ntr\\])", lambda found: _ESCAPES[found[1]], text)


def read_layers(ctx: typer.Context, config: Path | None) -> Path | None:
    """Fills the context's default map; runs before any other option is processed."""
    if ctx.resilient_parsing:
        return config
    options = {p.name: p for p in ctx.command.params if _is_option(p)}
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for file in config_files(config):
        for name, value in _read_table(file, str(ctx.command.name), options).items():
            values[name] = value
            origins[name] = f"{file}: [{ctx.command.name}] {name.replace('_', '-')}"
    _refuse_unknown_variables(options)
    for name, option in options.items():
        if text := os.environ.get(PREFIX + name.upper()):
            values[name] = _several(text) if getattr(option, "multiple", False) else text
            origins[name] = PREFIX + name.upper()
    ctx.default_map = values
    ctx.meta[ORIGINS] = origins
    return config


def _is_option(parameter: Any) -> bool:
    """Whether a parameter can be set from elsewhere; `--help` and the like cannot."""
    return parameter.param_type_name == "option" and bool(parameter.expose_value)


def _refuse_unknown_variables(options: Mapping[str, Any]) -> None:
    """A variable of ours that no command knows is a typing error, as such a key in a file is."""
    own = {name.upper() for name in options} | _NO_OPTIONS
    others = [v for v in os.environ if v.startswith(PREFIX) and v.removeprefix(PREFIX) not in own]
    if not others:
        return  # and nothing else had to be imported to know it
    known = {PREFIX + name for name in own}
    for place in COMMANDS.values():
        module, function = place.split(":")
        parameters = signature(getattr(import_module(module), function)).parameters
        known |= {PREFIX + name.upper() for name in parameters}
    for variable in others:
        if variable not in known:
            raise InputError(f"{variable}: {_no_such('option', variable, known)}")


def config_files(config: Path | None) -> Iterator[Path]:
    """The files to read, the weakest first."""
    from platformdirs import user_config_path

    user = user_config_path("hydragen") / FILE_NAME
    if user.exists():
        yield user
    if config is not None:
        yield config
    elif Path(FILE_NAME).exists():
        yield Path(FILE_NAME)


def _read_table(file: Path, command: str, options: Mapping[str, Any]) -> dict[str, Any]:
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror} (--config)") from error
    except ValueError as error:
        raise InputError(f"{file}: not valid TOML: {error}") from error
    for name, table in tables.items():
        if not isinstance(table, dict):
            where = f"expected in the table of a command, as below a line [{command}]"
            raise InputError(f"{file}: {name}: {where}")
        if name not in COMMANDS:
            raise InputError(f"{file}: {name}: {_no_such('table', name, COMMANDS)}")
    result = {}
    for key, value in tables.get(command, {}).items():
        name = key.replace("-", "_")
        if name not in options:
            flags = [known.replace("_", "-") for known in options]
            raise InputError(f"{file}: [{command}] {key}: {_no_such('option', key, flags)}")
        several = getattr(options[name], "multiple", False) and not isinstance(value, list)
        result[name] = [value] if several else value
    return result


def _no_such(kind: str, name: str, known: Any) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f"no such {kind}" + (f"; did you mean {close[0]}?" if close else "")


def _several(text: str) -> list[str]:
    """A variable for an option that may be repeated: one value, or a JSON list of them."""
    if text.startswith("["):
        try:
            return [str(item) for item in json.loads(text)]
        except ValueError:
            pass  # a value that happens to begin with a bracket
    return [text]
