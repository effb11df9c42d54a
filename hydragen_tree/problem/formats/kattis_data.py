"""The test data of a problem package: cases in judging order, with their validator's flags."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hydragen_tree.errors import InputError

LEGACY = ("legacy", "legacy-icpc")
# The names of 2025-09, then those of legacy, which the drafts between them use as well.
_GROUP_SETTINGS = ("test_group.yaml", "testdata.yaml")
_FLAGS = ("output_validator_args", "output_validator_flags")


@dataclass(frozen=True, slots=True)
class CaseData:
    """What `data/` says.

    Args:
        tests: as in a document, samples first, each group in lexicographic order.
        flags: the output validator's flags that all cases have in common.
        shown: samples for the statement that are not shown as they are judged.
    """

    tests: list[dict[str, Any]]
    flags: list[str]
    shown: list[str]


@dataclass(frozen=True, slots=True)
class _Case:
    stem: Path  # without its `.in`
    flags: tuple[str, ...]


def read_tests(
    package: Path, constants: Mapping[str, str], *, legacy: bool, interactive: bool
) -> CaseData:
    """Read `data/sample` and `data/secret`.

    Args:
        package: the package's directory.
        constants: values for `{{name}}` in the settings of groups.
        legacy: its format, in which cases have no settings of their own.
        interactive: samples are then shown as conversations.

    Raises:
        InputError: there is no secret case, an input or an answer is missing, a file is not UTF-8,
            or a case needs arguments or files.
    """
    data = package / "data"
    reader = _Reader(legacy, constants)
    root = reader.group_flags(data, ())
    samples = list(reader.cases(data / "sample", root))
    secret = list(reader.cases(data / "secret", root))
    if not secret:
        raise InputError(f"{data}/secret: no secret test case: the package cannot judge anything")
    cases = [*samples, *secret]
    common = list(cases[0].flags) if len({case.flags for case in cases}) == 1 else []
    conversations = sorted((data / "sample").glob("[!.]*.interaction"))
    shown = [_conversation(path) for path in conversations]
    tests = []
    for case in cases:
        test: dict[str, Any] = {"input": _text(case.stem, ".in"), "output": _answer(case.stem)}
        if list(case.flags) != common:
            test["checker_args"] = list(case.flags)
        if case in samples and not interactive:
            display = _display(case.stem, test)
            if display is None:
                test["sample"] = True
            else:
                shown.append(display)
        tests.append(test)
    return CaseData(tests, common, shown)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; an empty one is an empty mapping.

    Raises:
        InputError: it cannot be read.
    """
    try:
        loaded = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if not isinstance(loaded, dict | None):
        raise InputError(f"{path}: expected keys with values, got {type(loaded).__name__}")
    return loaded or {}


def format_version(metadata: Mapping[str, Any]) -> str:
    """The version of the format that a `problem.yaml` is in; one that names none is legacy."""
    return str(metadata.get("problem_format_version", "legacy"))


def is_legacy(metadata: Mapping[str, Any]) -> bool:
    """Whether a `problem.yaml` is in the format before 2023."""
    return format_version(metadata) in LEGACY


def mapping_of(where: Path, document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping below a key; empty without it.

    Raises:
        InputError: there is something else.
    """
    value = document.get(key)
    if not isinstance(value, dict | None):
        got = type(value).__name__
        raise InputError(f"{where}: {key}: expected keys with values, got {got}")
    return value or {}


def words_of(where: Path, key: str, value: Any) -> tuple[str, ...]:
    """Arguments of a program, from a list or from one string in a shell's form.

    Raises:
        InputError: it is neither.
    """
    if isinstance(value, list):
        return tuple(map(str, value))
    if not isinstance(value, str):
        got = type(value).__name__
        raise InputError(f"{where}: {key}: expected arguments as a list or a string, got {got}")
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise InputError(f"{where}: {key}: {value!r}: {error}") from None


@dataclass(frozen=True, slots=True)
class _Reader:
    """Walks through the groups of cases, which hand their flags down."""

    legacy: bool
    constants: Mapping[str, str]

    def cases(self, folder: Path, inherited: tuple[str, ...]) -> Iterator[_Case]:
        """Every case below a folder, in order, with the flags its groups and itself give it."""
        if not folder.is_dir():
            return
        flags = self.group_flags(folder, inherited)
        entries = sorted(folder.glob("[!.]*"), key=lambda path: path.name)
        for entry in entries:
            if entry.is_dir() and entry.suffix != ".files":
                yield from self.cases(entry, flags)
            elif entry.suffix == ".in":
                stem = entry.with_suffix("")
                yield _Case(stem, flags if self.legacy else self._case_flags(stem, flags))
            elif entry.suffix == ".ans" and not entry.with_suffix(".in").is_file():
                raise InputError(f"{entry}: its input {entry.stem}.in is missing")
            elif entry.suffix == ".files":
                raise InputError(f"{entry}: test cases with files of their own are not supported")

    def group_flags(self, folder: Path, inherited: tuple[str, ...]) -> tuple[str, ...]:
        """The output validator's flags for a folder's cases."""
        names = _GROUP_SETTINGS[1:] if self.legacy else _GROUP_SETTINGS
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is None:
            return inherited
        flags = self._flags(path, inherited)
        for name, value in self.constants.items():
            flags = tuple(flag.replace(f"{{{{{name}}}}}", value) for flag in flags)
        return flags

    def _case_flags(self, stem: Path, inherited: tuple[str, ...]) -> tuple[str, ...]:
        path = stem.with_name(stem.name + ".yaml")
        return self._flags(path, inherited) if path.is_file() else inherited

    def _flags(self, path: Path, inherited: tuple[str, ...]) -> tuple[str, ...]:
        settings = read_yaml(path)
        if settings.get("args"):
            raise InputError(f"{path}: args: command-line arguments for programs are not supported")
        key = next((key for key in _FLAGS if settings.get(key) is not None), None)
        if key is None:
            return inherited
        given = settings[key]
        if isinstance(given, dict):  # {name, flags}
            given = given.get("flags") or ""
        return words_of(path, key, given)


def _answer(stem: Path) -> str:
    if not stem.with_name(stem.name + ".ans").is_file():
        raise InputError(f"{stem}.in: its answer {stem.name}.ans is missing")
    return _text(stem, ".ans")


def _text(stem: Path, ending: str) -> str:
    path = stem.with_name(stem.name + ending)
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8: {error}") from None


def _display(stem: Path, test: Mapping[str, Any]) -> str | None:
    """A sample as the statement shows it, where that is not what is judged."""
    endings = {e for e in (".in.statement", ".ans.statement", ".out") if _has(stem, e)}
    if not endings:
        return None
    given = _text(stem, ".in.statement") if ".in.statement" in endings else test["input"]
    answer = next((e for e in (".out", ".ans.statement") if e in endings), None)
    expected = _text(stem, answer) if answer else test["output"]
    return "\n".join(["Input:", given.rstrip("\n"), "Output:", expected.rstrip("\n")])


def _has(stem: Path, ending: str) -> bool:
    return stem.with_name(stem.name + ending).is_file()


def _conversation(path: Path) -> str:
    """A sample interaction: `<` is what the program reads, `>` what it writes."""
    text = _text(path.with_suffix(""), ".interaction").strip("\n")
    return (
        f"Sample interaction (< is read by your program, > is written by it):\n\n{_indented(text)}"
    )


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())
