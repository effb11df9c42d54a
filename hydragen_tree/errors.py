"""The one exception tree of the project.

    HydragenError            anything we raise on purpose; exit code 1
    ├── InputError           the user can mend it: a file, a key, an option; exit code 2
    │   └── ModelError       a model or tokenizer that cannot be used
    ├── CapacityError        the work does not fit, even one branch at a time
    └── OutputError          the output cannot be written (full disk, lost permission)

Messages name the file or option, the key, what is wrong and what is expected.
"""


class HydragenError(Exception):
    """Base of all errors raised on purpose; the CLI prints the message and exits with the code."""

    exit_code = 1


class InputError(HydragenError):
    """Bad input: names the file or option, the key, and the remedy."""

    exit_code = 2


class ModelError(InputError):
    """A model or tokenizer that is missing, incomplete or not supported."""


class CapacityError(HydragenError):
    """The work cannot fit into the memory given; the message carries the numbers."""


class OutputError(HydragenError):
    """Writing the output failed; what was written before is intact."""


def one_line(text: str) -> str:
    """Text from who knows where, fit for a terminal: no line breaks, no control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
