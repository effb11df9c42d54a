"""Checkers that are programs, made ready once a problem.

    kattis    checker input answer feedback_dir [args] < output     exit 42 accepts, 43 rejects
    polygon   checker input output answer                             testlib's exit codes
    python    check(input, answer, output) -> bool | (bool, message)

All of them run in the sandbox: they read what an untrusted program wrote.
"""

import fcntl
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hydragen_tree.errors import InputError
from hydragen_tree.judge.languages import (
    CompileError,
    Language,
    compile_program,
    find_language,
    fingerprint,
    language_of,
)
from hydragen_tree.judge.sandbox.box import Box
from hydragen_tree.judge.sandbox.request import Outcome, Request, Role, RunLimits, file_path
from hydragen_tree.judge.store import Store
from hydragen_tree.problem.checkers import ProgramChecker
from hydragen_tree.problem.links import files_below
from hydragen_tree.problem.types import Problem, Test

LIMITS = RunLimits(cpu_s=60, wall_s=120, memory_bytes=2 << 30)
_FEEDBACK = "{scratch}/feedback"
_MAIN_FILES = ("__main__.py", "main.py", "check.py")
_MOST_FILES = 100
_HEADERS = (".h", ".hh", ".hpp")
_ACCEPTED, _REJECTED = 42, 43
_POLYGON_ACCEPTED, _POLYGON_REJECTED = (0,), (1, 2, 4, 8)  # WA, PE, dirt, unexpected end


class CheckerError(Exception):
    """The checker failed: a fault of the problem, never a wrong answer."""


@dataclass(frozen=True, slots=True)
class CheckerProgram:
    """A checker's program, ready to run.

    Args:
        checker: as the problem says.
        name: for messages.
        sources: (name, text) of its files, the main one first, of a Python one.
        image: descriptor of its executable, of a compiled one.
    """

    checker: ProgramChecker
    name: str
    sources: tuple[tuple[str, str], ...] = ()
    image: int | None = None

    def check(self, box: Box, test: Test, output: bytes) -> str | None:
        """Judge one output.

        Returns:
            Why it is wrong; None if it is right.

        Raises:
            CheckerError: the checker itself failed.
            BoxError: the sandbox failed.
        """
        given, answer = test.input.encode(), test.output.encode()
        if self.checker.protocol == "polygon":
            outcome = box.run(self._request(test, (given, output, answer)))
        elif self.checker.protocol == "python":
            outcome = box.run(self._request(test, (given, answer, output), role="checker"))
        else:
            outcome = box.run(self._request(test, (given, answer)), output)
        return self.interpret(outcome)

    def interactor(self, test: Test, limits: RunLimits) -> Request:
        """The program that a solution talks to."""
        return self._request(test, (test.input.encode(), test.output.encode()), limits=limits)

    def interpret(self, outcome: Outcome) -> str | None:
        """What the checker's end means: why the output is wrong, or None.

        Raises:
            CheckerError: it means neither right nor wrong.
        """
        polygon = self.checker.protocol == "polygon"
        accepted = _POLYGON_ACCEPTED if polygon else (_ACCEPTED,)
        rejected = _POLYGON_REJECTED if polygon else (_REJECTED,)
        said = (outcome.note or outcome.stderr.decode("utf-8", "replace")).strip()
        if not outcome.killed and not outcome.refused and outcome.exit_status in accepted:
            return None
        if not outcome.killed and not outcome.refused and outcome.exit_status in rejected:
            return said[:400] or "the checker rejects the output"
        end = outcome.refused or (outcome.killed and f"passed its limit ({outcome.killed})")
        if not end and outcome.signal is not None:
            end = f"was ended by signal {outcome.signal}"
        end = end or f"ended with exit status {outcome.exit_status}"
        last = said.rpartition("\n")[2][:200]
        raise CheckerError(f"{self.name} {end}: {last}" if last else f"{self.name} {end}")

    def close(self) -> None:
        """Give the compiled image back."""
        if self.image is not None:
            os.close(self.image)

    def _request(
        self,
        test: Test,
        files: tuple[bytes, ...],
        *,
        role: Role = "program",
        limits: RunLimits | None = None,
    ) -> Request:
        paths = [file_path(index) for index in range(len(files))]
        kattis = self.checker.protocol == "kattis"
        feedback = [f"{_FEEDBACK}/"] if kattis else []
        return Request(
            limits or LIMITS,
            argv=[self.name, *paths, *feedback, *self.checker.args, *test.checker_args],
            sources=self.sources,
            role=role,
            image=self.image,
            files=files,
            make=[_FEEDBACK] if kattis else (),
            collect=f"{_FEEDBACK}/judgemessage.txt" if kattis else "",
            scratch=kattis,
        )


def checker_files(problem: Problem) -> Mapping[str, bytes]:
    """The files of a problem's checker by name; none if it is no program.

    Raises:
        InputError: they cannot be read.
    """
    if not isinstance(problem.checker, ProgramChecker):
        return {}
    path = problem.directory / problem.checker.source
    try:
        if path.is_dir():
            inside = [file for file in files_below(path) if file.suffix != ".pyc"]
            return {str(p.relative_to(path)): p.read_bytes() for p in inside}
        headers = [p for p in sorted(path.parent.iterdir()) if p.suffix in _HEADERS]
        return {p.name: p.read_bytes() for p in (path, *headers)}
    except OSError as error:
        raise InputError(f"{problem.source}: checker: {path}: {error.strerror}") from None


def refuse_unusable_checker(problem: Problem) -> None:
    """Refuse a problem whose checker cannot be run here, before anything is.

    Raises:
        InputError: names the problem, the checker and the reason.
    """
    if not isinstance(problem.checker, ProgramChecker):
        return
    checker = problem.checker
    if checker.interactive and checker.protocol != "kattis":
        raise InputError(
            f"{problem.source or problem.id}: checker: an interactive one must speak the kattis "
            f"protocol, not {checker.protocol}"
        )
    files = checker_files(problem)
    language = _language(problem, files)
    if not language.compiler:
        _python_files(problem, files)
    if checker.protocol == "python" and language.compiler:
        raise InputError(f"{problem.source or problem.id}: checker: {checker.source} is no Python")


def prepare_checker(problem: Problem, box: Box, store: Store) -> CheckerProgram | None:
    """Make a problem's checker ready; None if it is no program.

    Args:
        problem: the problem.
        box: where it is compiled.
        store: where the compiled one is kept.

    Raises:
        InputError: it cannot be run here.
        CheckerError: it does not compile.
        BoxError: the sandbox failed.
    """
    if not isinstance(problem.checker, ProgramChecker):
        return None
    files = checker_files(problem)
    language = _language(problem, files)
    name = Path(problem.checker.source).name
    if not language.compiler:
        names = _python_files(problem, files)
        sources = tuple((file, files[file].decode("utf-8", "replace")) for file in names)
        return CheckerProgram(problem.checker, name, sources)
    parts = [fingerprint(language).encode(), *(f.encode() + b"\0" + c for f, c in files.items())]
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()
    executable = store.executable(key)
    if executable is None:
        try:
            executable = compile_program(box, language, files)
        except CompileError as error:
            raise CheckerError(f"{name} does not compile: {error}") from None
        store.put_executable(key, executable)
    return CheckerProgram(problem.checker, name, image=image_of(executable))


def image_of(executable: bytes) -> int:
    """A descriptor from which an executable can be started; it lies on no disk."""
    writing = os.memfd_create("program", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(executable)
    while view:
        view = view[os.write(writing, view) :]
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(writing, fcntl.F_ADD_SEALS, seals)
    # The kernel starts nothing that is still open for writing.
    reading = os.open(f"/proc/self/fd/{writing}", os.O_RDONLY | os.O_CLOEXEC)
    os.close(writing)
    return reading


def _python_files(problem: Problem, files: Mapping[str, bytes]) -> list[str]:
    """The names of a Python program's files, the one that is run first."""
    assert isinstance(problem.checker, ProgramChecker)
    names = [name for name in files if language_of(name) is not None]
    main = names[0] if len(names) == 1 else next((m for m in _MAIN_FILES if m in names), None)
    if main is None or len(names) > _MOST_FILES:
        raise InputError(
            f"{problem.source or problem.id}: checker: {problem.checker.source}: Python of "
            f"{len(names)} files, expected one of them to be {' or '.join(_MAIN_FILES)}, "
            f"and at most {_MOST_FILES}"
        )
    return [main, *(name for name in names if name != main)]


def _language(problem: Problem, files: Mapping[str, bytes]) -> Language:
    where = f"{problem.source or problem.id}: checker"
    assert isinstance(problem.checker, ProgramChecker)
    scripts = sorted({"build", "run"} & files.keys())
    if scripts:
        raise InputError(f"{where}: {problem.checker.source}/{scripts[0]} is not supported")
    found = {name: one for name in files if (one := language_of(name)) is not None}
    if len(set(found.values())) != 1:
        raise InputError(
            f"{where}: {problem.checker.source}: expected a program in Python, C or C++"
        )
    language = next(iter(found.values()))
    try:
        return find_language(language.name)
    except InputError as error:
        raise InputError(f"{where}: {problem.checker.source}: {error}") from None
