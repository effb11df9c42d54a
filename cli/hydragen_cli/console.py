"""What people read: on stderr, unless a command is there for nothing else."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stdout: bool = False) -> "Console":
    """The terminal behind stderr; colours follow NO_COLOR and the terminal.

    Brackets are text: names of problems and settings hold what rich would take for its markup.

    Args:
        stdout: the one behind stdout instead.
    """
    from rich.console import Console

    return Console(stderr=not stdout, highlight=False, emoji=False, markup=False)


def note(message: str, *, quiet: bool = False) -> None:
    """One line on stderr."""
    if not quiet:
        print(message, file=sys.stderr, flush=True)


def prints_on_stderr(ray: str | None) -> AbstractContextManager[object]:
    """Inside, what a Ray driver prints goes to stderr: Ray prints news of its machines on stdout.

    Our own data is written to the file that stdout was when its writer was made.

    Args:
        ray: the cluster's address; None: there is none, and nothing is changed.
    """
    return nullcontext() if ray is None else redirect_stdout(sys.stderr)


def prepare_libraries(model: str, *, quiet: bool, compiles: bool = False) -> None:
    """Has transformers import no more than a run needs, and not write over our own messages.

    Downloads keep their bars. Comes before anything imports transformers.

    Args:
        model: what is about to be loaded; where it has to come from the hub, that is said, since
            without a network the hub's client tries for half a minute.
        quiet: say nothing, and show no bars either.
        compiles: layers are to be compiled.
    """
    import logging
    from pathlib import Path

    from hydragen_tree.imports import spare_imports

    spare_imports(compiles=compiles)

    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    logging.getLogger("hydragen_tree").setLevel(logging.ERROR if quiet else logging.WARNING)
    if not quiet:
        enable_progress_bars()
        if "/" in model and not Path(model).expanduser().exists():
            print(f"looking for {model} on the hub", file=sys.stderr, flush=True)


def show(terminal: "Console", facts: Sequence[tuple[str, str]]) -> None:
    """Prints names and what is to be said about them, in two columns."""
    from rich.table import Table
    from rich.text import Text

    if not terminal.is_terminal:
        width = max(len(name) for name, _ in facts)
        for name, value in facts:
            terminal.print(f"{name:<{width}}  {value}", markup=False, soft_wrap=True)
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column()
    for name, value in facts:
        grid.add_row(name, Text(value))
    terminal.print(grid)


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 sample`, `2,000 samples`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """`4.2 s`, `3:07`, `2:03:07`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
