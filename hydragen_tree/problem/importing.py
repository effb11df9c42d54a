"""Anything that is recognised, as YAML problem files."""

import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydragen_tree.errors import InputError, OutputError, Setting
from hydragen_tree.files import write_text
from hydragen_tree.problem.formats.datasets import is_apps_directory, read_dataset
from hydragen_tree.problem.formats.kattis import is_kattis_package, package_document
from hydragen_tree.problem.formats.kattis_submissions import read_submissions
from hydragen_tree.problem.formats.shared import slug
from hydragen_tree.problem.reading import problem_from_document
from hydragen_tree.problem.types import Limits
from hydragen_tree.problem.writing import to_yaml

_ARCHIVES = (".zip", ".kpp")
_MOST_UNPACKED_BYTES = 8 << 30
_HEADERS = (".h", ".hh", ".hpp")


@dataclass(frozen=True, slots=True)
class Imported:
    """One problem on its way.

    Args:
        where: its file, line or directory.
        document: as the YAML file will hold it.
        checker: the checker's program: a file, or a directory, to be copied beside it.
        notes: what was left behind and what was put in, each with its file in front.
    """

    where: str
    document: dict[str, Any]
    checker: Path | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """A problem that cannot be imported. `str()` of it is a message for people."""

    where: str
    reason: str

    def __str__(self) -> str:
        named = self.reason.startswith(self.where)  # or a file below it
        return self.reason if named else f"{self.where}: {self.reason}"


def read_source(path: Path) -> Iterator[Imported | Refused]:
    """Every problem of a data set's file, a problem package (a directory or its archive), an APPS
    directory, or a directory of any of these.

    Args:
        path: a file or directory.

    Raises:
        InputError: it is none of these, or cannot be read.
    """
    if path.suffix in _ARCHIVES:
        yield from _archive(path)
    elif is_kattis_package(path):
        yield _package(path)
    elif is_apps_directory(path) or path.is_file():
        for where, found in read_dataset(path):
            if isinstance(found, InputError):
                yield Refused(where, str(found))
            else:
                yield _checked(Imported(where, found), where)
    elif path.is_dir():
        inside = sources_in(path)
        if not inside:
            raise InputError(f"{path}: no problem package and no data set in it")
        yield from read_sources(inside)
    else:
        raise InputError(f"{path}: no such file or directory")


def read_sources(paths: Iterable[Path]) -> Iterator[Imported | Refused]:
    """Every problem of several sources; one that cannot be read does not stop the others.

    Args:
        paths: as `read_source` takes them.
    """
    for path in paths:
        try:
            yield from read_source(path)
        except InputError as error:
            yield Refused(str(path), str(error))


def sources_in(path: Path) -> list[Path]:
    """The packages and data sets that a source stands for: itself, or those directly in it."""
    if not path.is_dir() or _is_source(path):
        return [path]
    return [part for part in sorted(path.iterdir()) if _is_source(part)]


def problem_paths(problem: Imported, directory: Path) -> list[Path]:
    """The YAML file that a problem is written to, and its checker's directory if it has one."""
    path = directory / f"{slug(problem.document['id'])}.yaml"
    return [path] if problem.checker is None else [path, path.with_name(f"{path.stem}-checker")]


def write_problem(problem: Imported, directory: Path, *, force: bool = False) -> Path:
    """Write a problem as a YAML file, and its checker's program beside it.

    Args:
        problem: what was read.
        directory: where to; it is made if need be.
        force: replace files that are there.

    Returns:
        The YAML file.

    Raises:
        InputError: the file exists.
        OutputError: it cannot be written.
    """
    path, *programs = problem_paths(problem, directory)
    document = dict(problem.document)
    if problem.checker is not None:
        (program,) = programs
        relative = Path(program.name) / (problem.checker.name if problem.checker.is_file() else "")
        document["checker"] = {**document["checker"], "source": str(relative)}
    for target in (path, *programs):
        if target.exists() and not force:
            raise InputError(f"{target}: exists; name another directory, or use ", Setting("force"))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if problem.checker is not None:
            _copy(problem.checker, program)
        if path.is_symlink():  # what it leads to is not ours to replace
            path.unlink()
        write_text(path, to_yaml(document))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def _is_source(path: Path) -> bool:
    name = path.name.removesuffix(".gz")
    if path.is_dir():
        return is_kattis_package(path) or is_apps_directory(path)
    return name.endswith((".json", ".jsonl", *_ARCHIVES))


def _package(path: Path) -> Imported | Refused:
    try:
        document, home = package_document(path)
        _, skipped = read_submissions(path, {})
    except InputError as error:
        return Refused(str(path), str(error))
    source = document["checker"].get("source")
    checker = path / source if source else None
    notes = [f"{name}: left out" for name in skipped]
    if "time_s" not in document["limits"]:
        notes.append(
            f"problem.yaml: no time limit, so that of {Limits().time_s:g} s stands in; "
            "`hydragen check --calibrate --write` sets one for Python"
        )
    return _checked(Imported(str(path), document, checker, tuple(notes)), home)


def _checked(problem: Imported, source: str) -> Imported | Refused:
    """The problem, if it is a valid one; its neighbour files are looked for beside the source."""
    try:
        problem_from_document(problem.document, source)
    except InputError as error:
        return Refused(problem.where, str(error))
    return problem


def _archive(path: Path) -> Iterator[Imported | Refused]:
    """A package in a ZIP file, unpacked for as long as it is read."""
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            if sum(entry.file_size for entry in archive.infolist()) > _MOST_UNPACKED_BYTES:
                raise InputError(f"{path}: more than {_MOST_UNPACKED_BYTES >> 30} GiB unpacked")
            home = Path(folder) / path.stem  # the archive's name is the package's
            _unpack(archive, home)
            parts = [p for p in (home, *sorted(home.iterdir())) if is_kattis_package(p)]
            if not parts:
                raise InputError(f"{path}: no problem package in it")
            for part in parts:
                yield _in_archive(_package(part), home, path)
    except (OSError, zipfile.BadZipFile, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: cannot be unpacked: {error}") from None


def _unpack(archive: zipfile.ZipFile, home: Path) -> None:
    """Unpack, links as links; they are made when all is written, so that nothing goes through."""
    links = []
    for entry in archive.infolist():
        path = Path(archive.extract(entry, home))
        if stat.S_ISLNK(entry.external_attr >> 16):
            links.append(path)
    for path in links:
        target = os.fsdecode(path.read_bytes())
        path.unlink()
        path.symlink_to(target)


def _in_archive(found: Imported | Refused, home: Path, path: Path) -> Imported | Refused:
    """The same, named by the archive instead of the folder that it was unpacked to."""
    where = found.where.replace(str(home), str(path))
    if isinstance(found, Refused):
        return Refused(where, found.reason.replace(str(home), str(path)))
    return replace(found, where=where)


def _copy(source: Path, target: Path) -> None:
    if target.is_symlink() or target.is_file():
        target.unlink()
    elif target.exists():
        shutil.rmtree(target)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        target.mkdir()
        headers = [path for path in source.parent.iterdir() if path.suffix in _HEADERS]
        for path in (source, *headers):
            shutil.copy2(path, target)
