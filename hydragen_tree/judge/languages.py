"""Languages: how a program of each is compiled and run.

A row of the table is all that a language needs. Compilers run in the sandbox like everything else:
source in, executable out, no file of the machine in reach but the system's own.
"""

import hashlib
import io
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from hydragen_tree.errors import InputError
from hydragen_tree.judge.sandbox.box import Box
from hydragen_tree.judge.sandbox.request import Request, RunLimits

_LIMITS = RunLimits(
    cpu_s=60, wall_s=120, memory_bytes=2 << 30, output_bytes=64 << 20, file_bytes=256 << 20
)


@dataclass(frozen=True, slots=True)
class Language:
    """One language.

    Args:
        name: its name on the command line and in problems.
        suffixes: of its source files.
        compiler: the compiler's program; empty for Python, which the sandbox's runner is itself.
        arguments: the compiler's, before the names of the source files.
        libraries: the compiler's arguments after them.
    """

    name: str
    suffixes: tuple[str, ...]
    compiler: str = ""
    arguments: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()


LANGUAGES = {
    language.name: language
    for language in (
        Language("python", (".py", ".py3")),
        Language("c", (".c",), "gcc", ("-std=gnu17", "-O2"), ("-lm",)),
        Language("c++", (".cc", ".cpp", ".cxx"), "g++", ("-std=gnu++20", "-O2")),
    )
}


class CompileError(Exception):
    """The compiler does not accept the source; the message is its own."""


def find_language(name: str) -> Language:
    """The language of that name.

    Raises:
        InputError: there is no such language, or its compiler is not installed.
    """
    key = {"cpp": "c++", "python3": "python", "py": "python"}.get(name.lower(), name.lower())
    if key not in LANGUAGES:
        raise InputError(f"language {name!r}: expected one of {', '.join(LANGUAGES)}")
    language = LANGUAGES[key]
    if language.compiler and shutil.which(language.compiler) is None:
        raise InputError(f"language {name!r}: its compiler {language.compiler} is not installed")
    return language


def language_of(file_name: str) -> Language | None:
    """The language of a source file, by its ending."""
    ending = "." + file_name.rpartition(".")[2]
    return next((one for one in LANGUAGES.values() if ending in one.suffixes), None)


@lru_cache
def fingerprint(language: Language) -> str:
    """What a cached executable depends on beside its source: compiler, version, arguments."""
    answer = subprocess.run(
        [language.compiler, "--version"], capture_output=True, text=True, check=False
    )
    parts = [language.name, *language.arguments, *language.libraries, answer.stdout]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def compile_program(box: Box, language: Language, files: Mapping[str, bytes]) -> bytes:
    """Compile a program in the sandbox.

    Args:
        box: where.
        language: one with a compiler.
        files: by name: sources, told by their endings, and headers.

    Returns:
        The executable.

    Raises:
        CompileError: it is not accepted, or takes too much to compile.
        BoxError: the sandbox failed.
    """
    compiler = shutil.which(language.compiler)
    assert compiler is not None
    sources = [name for name in files if name.endswith(language.suffixes)]
    script = 'tar xf - && export TMPDIR="$PWD" && "$@" -o program && cat program'
    command = ["/bin/sh", "-c", script, "sh", compiler, *language.arguments, *sources]
    outcome = box.run(
        Request(_LIMITS, argv=[*command, *language.libraries], scratch=True), _archive(files)
    )
    if outcome.killed:
        raise CompileError(f"the compiler passed its limit ({outcome.killed})")
    if outcome.exit_status != 0 or not outcome.stdout:
        raise CompileError(outcome.stderr.decode("utf-8", "replace")[:1000].strip())
    return outcome.stdout


def _archive(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
