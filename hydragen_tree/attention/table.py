"""The table of attention backends: its order is the order in which `auto` tries them.

A new backend is a file like the others, a line here, and its test. Nothing here imports torch, so
that the command line can name the backends in its help.
"""

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from hydragen_tree.errors import InputError

if TYPE_CHECKING:
    from hydragen_tree.attention.backend import Backend
    from hydragen_tree.attention.heads import Heads


class Entry(NamedTuple):
    """A backend's name, what to say of it in a list, and its class."""

    name: str
    note: str
    home: str


TABLE = (
    Entry("native", "CPU", "native_backend.NativeBackend"),
    Entry("triton", "GPU", "triton_backend.TritonBackend"),
    Entry("torch", "anywhere", "torch_backend.TorchBackend"),
    # torch can serve whatever there is, so those below are only ever asked for by name. Flash
    # attention was slower than our kernel wherever both were measured
    # (benchmarks/attention-h200.json, `segment_kernel`).
    Entry("flash", "GPU", "flash_backend.FlashBackend"),
    # What the batch-invariant mode takes.
    Entry("ordered", "one order of summation", "ordered_backend.OrderedBackend"),
    Entry("reference", "plain and slow", "reference_backend.ReferenceBackend"),
)
BACKENDS = ("auto", *(entry.name for entry in TABLE))
CHOICES = ", ".join(["auto", *(f"{entry.name} ({entry.note})" for entry in TABLE)])


def backend(name: str) -> "Backend":
    """The backend of that name.

    Raises:
        InputError: there is none.
    """
    for entry in TABLE:
        if entry.name == name:
            module, kind = entry.home.split(".")
            made: Backend = getattr(import_module(f"hydragen_tree.attention.{module}"), kind)()
            return made
    raise InputError(f"expected one of {', '.join(BACKENDS)}", setting="attention", value=name)


def choose(asked: str, heads: "Heads") -> str:
    """The name of the backend that serves these heads: the one asked for, or the first that can.

    Args:
        asked: a name from `BACKENDS`.
        heads: what it is to compute.

    Raises:
        InputError: there is no such backend, or it cannot serve them.
    """
    if asked == "auto":
        return next(entry.name for entry in TABLE if backend(entry.name).why_not(heads) is None)
    if why := backend(asked).why_not(heads):
        raise InputError(f"{why}; use auto", setting="attention", value=asked)
    return asked


def passed_over(chosen: str, heads: "Heads") -> list[tuple[str, str]]:
    """Names and reasons of the backends that `auto` tried before the chosen one."""
    before = BACKENDS[1 : BACKENDS.index(chosen)]
    return [(name, why) for name in before if (why := backend(name).why_not(heads))]
