"""One guard for everything that is written: no output covers an input, or another output.

It looks at files, not at names, so that links and relative paths are no way around it; and it
holds with `--force` too, which gives up an earlier output and nothing else.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hydragen_tree.errors import InputError

if TYPE_CHECKING:
    from hydragen_tree.problem.types import Problem

_NEVER = (".yaml", ".yml", ".toml")  # problems, their pools of examples, configuration


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[tuple[str, Path]]) -> None:
    """Finds out now, not after hours, that a result cannot be written or would cover something.

    Args:
        outputs: by the setting that names them; None and devices are passed over.
        inputs: what each is, and its path; a directory stands for all that lies below it.

    Raises:
        InputError: a directory is missing, or an output is an input, another output, or an
            existing file of a kind that is never written.
    """
    read = list(inputs)
    written: list[tuple[str, Path]] = []
    for setting, path in outputs.items():
        if path is None or (path.exists() and not path.is_file()):
            continue
        if not path.absolute().parent.is_dir():
            raise InputError(
                f"cannot be written: no directory {path.parent}", setting=setting, value=path
            )
        for what, other in [*read, *written]:
            if _covers(path, other):
                raise InputError(f"is {what}", setting=setting, value=path)
        if path.exists() and path.resolve().suffix.lower() in _NEVER:
            raise InputError(
                "exists, and is YAML or TOML, which is never written; name another file",
                setting=setting,
                value=path,
            )
        written.append((f"the file of --{setting} too", path))


def files_of(problems: "Iterable[Problem]") -> Iterator[tuple[str, Path]]:
    """What the given problems were read from, as `check_outputs` takes it."""
    for problem in problems:
        path = Path(problem.source)
        if not path.is_file():
            continue  # from stdin, or a record of a data set
        yield "a problem's file", path
        if path.name == "problem.yaml":
            yield "a file of a problem package", path.parent
        if problem.checker.type == "program":
            yield "a problem's checker", problem.directory / problem.checker.source


def _covers(path: Path, other: Path) -> bool:
    """Whether writing `path` would change `other`, which may not exist yet."""
    if path.resolve() == other.resolve():
        return True
    if not path.exists() or not other.exists():
        return False
    return path.samefile(other) or (other.is_dir() and other.resolve() in path.resolve().parents)
