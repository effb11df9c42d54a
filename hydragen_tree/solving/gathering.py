"""Problems of any kind for one run: those that are not files of ours are imported into its folder.

What was imported stands in the run's folder from then on, so that the run can be judged and looked
at without its sources; a later call makes sure that the sources still say the same.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydragen_tree.errors import InputError, OutputError, Setting, first_of
from hydragen_tree.problem.formats.datasets import is_apps_directory
from hydragen_tree.problem.importing import (
    Refused,
    problem_paths,
    read_sources,
    sources_in,
    write_problem,
)
from hydragen_tree.problem.reading import load_problems
from hydragen_tree.problem.types import Problem

_FOREIGN = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".zip", ".kpp")


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a run's sources hold.

    Args:
        problems: ready to be solved.
        refused: a message for every problem that could not be imported.
        notes: what importing left out or put in.
    """

    problems: Sequence[Problem]
    refused: Sequence[str] = ()
    notes: Sequence[str] = ()


def gather(sources: Sequence[str], imported: Path, *, force: bool = False) -> Gathered:
    """Reads every problem that is named; data sets and archives are imported first.

    Args:
        sources: as `load_problems` takes them, and data sets, archives of packages, APPS
            directories, and directories of these.
        imported: the folder where imported problems go; the one above it is made if need be.
        force: what was imported there before may be replaced.

    Raises:
        InputError: a source holds no problem, or another one than when it was imported.
        OutputError: the folder cannot be written.
    """
    foreign = [source for source in sources if _is_foreign(source)]
    if not foreign:
        return Gathered(load_problems(sources))
    try:
        imported.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".importing-", dir=imported.parent))
    except OSError as error:
        raise OutputError(f"{imported}: cannot be written: {error.strerror}") from error
    try:
        refused, notes = _import(foreign, scratch / imported.name)
        _put_in_place(scratch / imported.name, imported, force=force)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    own = [source for source in sources if source not in foreign]
    return Gathered(load_problems([*own, str(imported)]), refused, notes)


def _is_foreign(source: str) -> bool:
    path = Path(source)
    if path.is_dir():
        return is_apps_directory(path) or (
            not any(path.glob("*.yaml"))
            and any(_is_foreign(str(part)) for part in sources_in(path) if part != path)
        )
    return path.is_file() and path.name.endswith(_FOREIGN)


def _import(sources: Sequence[str], directory: Path) -> tuple[list[str], list[str]]:
    """Writes every problem of foreign sources; returns what was refused, and remarks."""
    written: dict[Path, str] = {}
    refused: list[str] = []
    notes: list[str] = []
    for found in read_sources(map(Path, sources)):
        if not isinstance(found, Refused):
            path = problem_paths(found, directory)[0]
            if path in written:
                found = Refused(found.where, f"has the name of {written[path]}")
        if isinstance(found, Refused):
            refused.append(str(found))
            continue
        written[write_problem(found, directory)] = found.where
        notes += [f"{found.where}/{remark}" for remark in found.notes]
    if not written:
        why = "every problem was refused" if refused else "there is no problem in it"
        raise InputError("\n".join([*refused, f"nothing was imported: {why}"]))
    return refused, notes


def _put_in_place(fresh: Path, imported: Path, *, force: bool) -> None:
    """Makes what was just imported the run's, unless that stands there already.

    Raises:
        InputError: other problems stand there.
    """
    if imported.exists() and not force:
        before, now = (
            {problem.id: problem.content_hash for problem in load_problems([str(folder)])}
            for folder in (imported, fresh)
        )
        if changed := sorted(dict(before.items() ^ now.items())):
            raise InputError(
                f"{imported}: not what the sources hold now ({first_of(changed)}); name another "
                "folder with ",
                Setting("output"),
                ", or start this one anew with ",
                Setting("force"),
            )
        return
    shutil.rmtree(imported, ignore_errors=True)
    fresh.rename(imported)
