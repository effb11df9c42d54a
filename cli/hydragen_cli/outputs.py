"""One guard for everything that is written: no output covers an input, or another output.

It looks at files, not at names, so that links and relative paths are no way around it; and it
holds with `--force` too, which gives up an earlier output and nothing else. Standard output counts
as an output, and standard input as an input, where they are files.
"""

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from hydragen_tree import files
from hydragen_tree.errors import InputError, OutputError

if TYPE_CHECKING:
    from hydragen_tree.problem.types import Problem

_NEVER = (".yaml", ".yml", ".toml")  # problems, their pools of examples, configuration
_STDIN, _STDOUT = Path("/dev/stdin"), Path("/dev/stdout")
_NAMES_OF_STDOUT = {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}
# What transformers reads in a model's directory; results may lie there too.
_MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "*token*.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.jinja",
    "*.safetensors",
    "*.bin",
    "*.index.json",
    "*.gguf",
)


def file_or_stdout(path: Path | None) -> Path | None:
    """The file that an option names; None where it names standard output, or nothing."""
    return None if path is None or str(path) in _NAMES_OF_STDOUT else path


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[tuple[str, Path]]) -> None:
    """Finds out now, not after hours, that a result cannot be written or would cover something.

    Args:
        outputs: by the setting that names them; None and devices are passed over.
        inputs: what each is, and its path; a directory stands for all that lies below it.

    Raises:
        InputError: an output cannot be written, or is an input, another output, or an existing
            file of a kind that is never written.
    """
    read = list(inputs)
    if _is_file(0):
        read.append(("what stdin is read from", _STDIN))
    _check_stdout(read)
    written: list[tuple[str, Path]] = []
    for setting, path in outputs.items():
        if path is None:
            continue
        if path.is_dir():
            raise InputError("is a directory; name a file", setting=setting, value=path)
        if files.is_descriptor(path) or (path.exists() and not path.is_file()):
            continue
        if not path.resolve().parent.is_dir():
            raise InputError(
                f"cannot be written: no directory {path.parent}", setting=setting, value=path
            )
        if not os.access(path if path.exists() else path.resolve().parent, os.W_OK):
            place = "the file" if path.exists() else f"the directory {path.resolve().parent}"
            raise InputError(
                f"cannot be written: {place} is read-only or another user's",
                setting=setting,
                value=path,
            )
        if what := what_it_covers(path, [*read, *written]):
            raise InputError(f"is {what}", setting=setting, value=path)
        if path.exists() and path.resolve().suffix.lower() in _NEVER:
            raise InputError(
                "exists, and is YAML or TOML, which is never written; name another file",
                setting=setting,
                value=path,
            )
        written.append((f"the file of --{setting} too", path))


def what_it_covers(path: Path, others: Iterable[tuple[str, Path]]) -> str | None:
    """What would be changed by writing a file or a directory; None if nothing that is named.

    Args:
        path: what is going to be written.
        others: what each of the rest is, and its path; a directory stands for all below it.
    """
    return next((what for what, other in others if _covers(path, other)), None)


def files_of(problems: "Iterable[Problem]") -> Iterator[tuple[str, Path]]:
    """What the given problems were read from, as `check_outputs` takes it."""
    from hydragen_tree.problem.formats.kattis import package_of

    for problem in problems:
        path = Path(problem.source)
        if not path.is_file():
            continue  # from stdin, or a record of a data set
        yield "a problem's file", path
        if (package := package_of(path)) is not None:
            parts = package.iterdir()
            yield from (("a file of a problem package", part) for part in parts if part.is_dir())
        if problem.checker.type == "program":
            yield "a problem's checker", problem.directory / problem.checker.source
        if problem.few_shot is not None and problem.few_shot.pool_file:
            yield "a problem's pool of examples", problem.directory / problem.few_shot.pool_file


def files_of_model(model: str) -> Iterator[tuple[str, Path]]:
    """What a model is loaded from, where it lies on the disk."""
    path = Path(model).expanduser()
    found = [path] if path.is_file() else [f for kind in _MODEL_FILES for f in path.glob(kind)]
    yield from (("a file of the model", file) for file in found if path.exists())


def refuse_existing(path: Path | None, force: bool, *, beside: Path | None = None) -> None:
    """Finds out before any work that an earlier output would be lost.

    Args:
        path: what is going to be written whole; None, streams and devices are passed over.
        force: it may be lost.
        beside: a file that belongs to it, and is a sign of an earlier output, too.

    Raises:
        InputError: it is there.
    """
    if force or path is None or files.is_descriptor(path):
        return
    if path.is_file() or (not path.exists() and beside is not None and beside.exists()):
        found = path if path.is_file() else beside
        raise InputError("exists; name another file, or use --force", setting="output", value=found)


@contextmanager
def open_output(path: Path | None) -> Iterator[IO[bytes]]:
    """Where to write; None is stdout. A file appears when it is whole, in place of what was there.

    Raises:
        InputError: stdout is closed.
        OutputError: it cannot be written; what was there still is.
    """
    if path is None:
        if sys.stdout is None:
            raise InputError("stdout: closed; name a file", setting="output")
        yield sys.stdout.buffer
        return
    try:
        with files.replacing(path) as scratch, scratch.open("wb") as file:
            yield file
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_text(setting: str, path: Path, text: str) -> None:
    """Writes a result whole, in place of an earlier one.

    Raises:
        OutputError: it cannot be written; what was there still is.
    """
    try:
        files.write_text(path, text)
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror or error}", setting=setting, value=path
        ) from error


def _check_stdout(inputs: Iterable[tuple[str, Path]]) -> None:
    """Refuses `>> FILE` where that file is read: what is written would be read again."""
    if not _is_file(1):
        return
    for what, other in inputs:
        if _covers(_STDOUT, other):
            raise InputError(f"stdout: goes to {other}, which is {what}")


def _is_file(fd: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:  # closed
        return False


def _covers(path: Path, other: Path) -> bool:
    """Whether writing `path` would change `other`, which may not exist yet."""
    if path.resolve() == other.resolve():
        return True
    if not path.exists() or not other.exists():
        return False
    place, read = path.resolve(), other.resolve()
    inside = other.is_dir() and read in place.parents
    holds = path.is_dir() and place in read.parents
    return inside or holds or path.samefile(other)
