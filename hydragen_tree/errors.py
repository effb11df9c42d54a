"""The one exception tree of the project.

    HydragenError            anything we raise on purpose; exit code 1
    ├── InputError           the user can mend it: a file, a key, a setting; exit code 2
    │   ├── ModelError       a model or tokenizer that cannot be used
    │   └── PlanError        a plan or tensors that attention cannot take; a ValueError, too
    ├── CapacityError        the work does not fit, even one branch at a time
    └── OutputError          the output cannot be written (full disk, lost permission)

Messages name the file or setting, the key, what is wrong and what is expected. They speak of
settings as Python does (`max_tokens`); who shows them to people that know the settings by another
name, as the command line does (`--max-tokens`), translates with `worded`.
"""

from collections.abc import Callable, Sequence


class Setting(str):
    """The name of a setting, as a part of a message."""

    __slots__ = ()


class HydragenError(Exception):
    """Base of all errors raised on purpose; the CLI prints the message and exits with the code.

        InputError("expected an integer >= 1", setting="max_tokens", value=0)
        CapacityError("no room; lower ", Setting("max_tokens"))

    Args:
        parts: the message, in pieces, some of them a `Setting`.
        setting: the setting at fault; its name comes first in the message.
        value: what it was given, where that says something.
    """

    exit_code = 1

    def __init__(
        self, *parts: str, setting: str | None = None, value: object | None = None
    ) -> None:
        if setting is not None:
            given = "" if value is None else f" {value}"
            parts = (Setting(setting), f"{given}: ", *parts)
        super().__init__(*parts)

    def __str__(self) -> str:
        return "".join(self.args)

    @property
    def setting(self) -> str | None:
        """The setting at fault, where it is one."""
        first = self.args[0] if self.args else None
        return str(first) if isinstance(first, Setting) else None

    def worded(self, name: Callable[[str], str]) -> str:
        """The message with every setting's name translated.

        Args:
            name: from a setting's name to what the reader calls it.
        """
        return "".join(name(part) if isinstance(part, Setting) else part for part in self.args)


class InputError(HydragenError):
    """Bad input: names the file or setting, the key, and the remedy."""

    exit_code = 2


class ModelError(InputError):
    """A model or tokenizer that is missing, incomplete or not supported."""


class PlanError(InputError, ValueError):
    """A plan or tensors that attention cannot take; the message names the field."""


class CapacityError(HydragenError):
    """The work cannot fit into the memory given; the message carries the numbers."""


class OutputError(HydragenError):
    """Writing the output failed; what was written before is intact."""


def one_line(text: str) -> str:
    """Text from who knows where, fit for a terminal: no line breaks, no control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def first_line(error: Exception) -> str:
    """The first line of somebody else's message, without its full stop."""
    return str(error).strip().split("\n")[0].rstrip(".")


def first_of(names: Sequence[str], most: int = 3) -> str:
    """The first few of many names, fit for a terminal, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(one_line, names[:most])) + more
