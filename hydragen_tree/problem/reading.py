"""Reading problems: YAML files, whose errors name file, line and key, and packages of others.

    problems/a.yaml:12: limits.time_s: got -1, expected greater than 0

Everything wrong with everything that was named is said in one error.
"""

import glob
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydragen_tree.errors import InputError
from hydragen_tree.problem.checkers import (
    Checker,
    ExactChecker,
    FloatChecker,
    ProgramChecker,
    TokensChecker,
)
from hydragen_tree.problem.formats.kattis import package_document, package_of
from hydragen_tree.problem.types import (
    Example,
    FewShot,
    Limits,
    Pool,
    Problem,
    ProgramStatus,
    Submission,
    Test,
    problem_json_schema,
)
from hydragen_tree.problem.validation import validate
from hydragen_tree.problem.yaml_lines import Document, parse_yaml, read_yaml

__all__ = [
    "Checker",
    "ExactChecker",
    "Example",
    "FewShot",
    "FloatChecker",
    "Limits",
    "Problem",
    "ProgramChecker",
    "ProgramStatus",
    "Submission",
    "Test",
    "TokensChecker",
    "load_problem",
    "load_problems",
    "load_valid_problems",
    "problem_from_document",
    "problem_json_schema",
]

STDIN = "<stdin>"
_TO_IMPORT = (".jsonl", ".gz", ".zip", ".kpp")


def load_problem(path: str | Path) -> Problem:
    """Reads one problem: a YAML file, or a Kattis package.

    Args:
        path: the file, the package's directory, or the package's problem.yaml.

    Raises:
        InputError: it cannot be read or is not valid; every fault is a line of the message.
    """
    reader = _Reader()
    reader.add_file(Path(path))
    (problem,) = reader.result()
    return problem


def load_problems(sources: Sequence[str]) -> list[Problem]:
    """Reads every problem that is named, each file once.

    Args:
        sources: files; Kattis packages; directories, which stand for the problem files and packages
            directly in them; globs, `**` too; `-` for the YAML documents on standard input.
            Few-shot pools in a directory or among a glob's matches are passed over.

    Raises:
        InputError: a source holds no problem, something is not valid, or two problems share an id.
    """
    if not sources:
        raise InputError("no problems named, expected files, directories, globs, or - for stdin")
    reader = _Reader()
    for source in sources:
        reader.add(source)
    return reader.result()


def load_valid_problems(sources: Sequence[str]) -> tuple[list[Problem], list[str]]:
    """Reads every problem that is named and can be read, and says what is wrong with the others.

    Args:
        sources: as for `load_problems`.

    Returns:
        (problems, faults: a message each, which names the file).
    """
    reader = _Reader()
    for source in sources:
        reader.add(source)
    return reader.problems, reader.faults


def problem_from_document(document: dict[str, Any], source: str) -> Problem:
    """Validates a document that another format was turned into.

    Args:
        document: what a problem file would say.
        source: where it came from; files it names are looked for beside it.

    Raises:
        InputError: it is not a valid problem.
    """
    reader = _Reader()
    reader.add_document(Document(source, document))
    (problem,) = reader.result()
    return problem


class _Reader:
    """Reads problems, shared pools once, and keeps the faults until all has been read."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.faults: list[str] = []
        self._homes: dict[str, str] = {}  # task id to file:line
        self._seen: set[Path] = set()
        self._pools: dict[Path, tuple[Example, ...] | None] = {}  # None: it has faults

    def result(self) -> list[Problem]:
        """What was read.

        Raises:
            InputError: there were faults.
        """
        if self.faults:
            raise InputError("\n".join(self.faults))
        return self.problems

    def add(self, source: str) -> None:
        """Reads a file, package, directory, glob or `-`."""
        path = Path(source)
        if source == "-":
            self._add_stdin()
        elif path.is_dir() and not package_of(path):
            if not self._add_members(sorted(path.iterdir())):
                self.faults.append(f"{source}: no problem here, expected *.yaml or packages")
        elif path.exists():
            self.add_file(path)
        else:
            matches = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 (may be absolute)
            if not self._add_members(map(Path, matches)):
                what = "matches no problem" if matches else "no such file or directory, no match"
                self.faults.append(f"{source}: {what}, expected *.yaml or packages")

    def _add_members(self, paths: Iterable[Path]) -> int:
        return sum(self.add_file(path, named=False) for path in paths)

    def add_file(self, path: Path, *, named: bool = True) -> bool:
        """Reads a problem file or a package.

        Args:
            path: where it is.
            named: the user named it, and not just the directory or the glob it was found by.

        Returns:
            Whether it is meant to be a problem.
        """
        package = package_of(path)
        if not named and not package and path.suffix not in (".yaml", ".yml"):
            return False
        place = (package or path).resolve()
        if place in self._seen:
            return True
        self._seen.add(place)
        with self._collecting():
            if package:
                data, source = package_document(package)
                self._keep(self._problem(Document(source, data)), str(package))
                return True
            if path.name.endswith(_TO_IMPORT):
                raise InputError(
                    f"{path}: a data set or an archive, expected a problem file; "
                    f"`hydragen import {path} -o DIRECTORY` makes such files of it"
                )
            document, *others = read_yaml(path)
            if not named and _is_pool(document):
                return False
            self.add_document(document)
            if others:
                raise InputError(f"{others[0].where()}: a second document, expected one a file")
        return True

    def add_document(self, document: Document) -> None:
        """Validates what is meant to be a problem."""
        with self._collecting():
            self._keep(self._problem(document), document.where(["id"]))

    def _add_stdin(self) -> None:
        with self._collecting():
            for document in parse_yaml(sys.stdin.buffer.read(), STDIN):
                self.add_document(document)

    def _problem(self, document: Document) -> Problem:
        data, name = document.data, document.name
        if not isinstance(data, dict):
            raise InputError(f"{document.where()}: expected a mapping with `id`, `statement`, ...")
        if _is_pool(document):
            raise InputError(f"{document.where()}: a pool of few-shot examples, expected a problem")
        if "source" in data:
            raise InputError(f"{document.where(['source'])}: source: unknown key")
        default = {} if name == STDIN else {"id": Path(name).stem}
        values = {**default, **data, "source": name}
        return validate(Problem, document, values, context=_FileContext(self, Path(name).parent))

    def _keep(self, problem: Problem, home: str) -> None:
        other = self._homes.setdefault(problem.id, home)
        if other != home:
            raise InputError(
                f"{home}: id: {problem.id!r} is the id of {other} too, expected its own"
            )
        self.problems.append(problem)

    def pool(self, path: Path) -> tuple[Example, ...]:
        """The examples of a pool file.

        Raises:
            ValueError: there is none, or it has faults, which are kept the first time.
        """
        if not path.is_file():
            raise ValueError(f"no such file {path}, expected a file of `examples:` or a list")
        place = path.resolve()
        if place not in self._pools:
            self._pools[place] = None
            with self._collecting():
                document, *_ = read_yaml(path)
                self._pools[place] = validate(Pool, document).examples
        examples = self._pools[place]
        if examples is None:
            raise ValueError(f"{path} has faults, listed too")
        return examples

    @contextmanager
    def _collecting(self) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            self.faults.append(str(error))


@dataclass(frozen=True, slots=True)
class _FileContext:
    """The files around a problem file, for its validation."""

    reader: _Reader
    directory: Path

    def examples(self, path: str) -> tuple[Example, ...]:
        return self.reader.pool(self.directory / path)

    def exists(self, path: str) -> bool:
        return (self.directory / path).exists()


def _is_pool(document: Document) -> bool:
    return isinstance(document.data, dict) and "examples" in document.data
