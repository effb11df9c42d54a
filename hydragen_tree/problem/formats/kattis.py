"""Kattis/ICPC problem packages, legacy and 2025-09, as documents of ours.

Read: the statement, sample and secret data, limits, the output validator with its flags, and the
submissions in Python, C and C++. Refused by name, because judging would be wrong without it:
multi-pass and submit-answer problems, scores that a validator decides, static validators, test
cases with command-line arguments or files, and code from `include/`. Test groups of scoring
problems are judged as one: all must pass.

Source: the Problem Package Format, versions legacy and 2025-09.
"""

import configparser
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydragen_tree.errors import InputError
from hydragen_tree.problem.formats.kattis_data import (
    LEGACY,
    CaseData,
    format_version,
    is_legacy,
    mapping_of,
    read_tests,
    read_yaml,
    words_of,
)
from hydragen_tree.problem.formats.kattis_submissions import read_submissions
from hydragen_tree.problem.formats.shared import slug
from hydragen_tree.problem.formats.statement import read_statement, statement_languages
from hydragen_tree.problem.links import files_below, refuse_links_out

_VERSIONS = (*LEGACY, "2023-07", "2023-07-draft", "2025-09", "2025-09-draft", "draft")
_TYPICAL_MEMORY_MIB = 2048  # what the specification calls the typical system default
_TYPES = ("pass-fail", "scoring", "interactive", "multi-pass", "submit-answer")
# What is read of a package; a submission that cannot be read is left out alone.
_PARTS = (
    *("problem.yaml", ".timelimit", "domjudge-problem.ini", "data", "statement"),
    *("problem_statement", "output_validator", "output_validators"),
)
_VALIDATION = {"default", "custom", "score", "interactive", "multi-pass"}
_UNSUPPORTED_TYPES = {
    "multi-pass": "runs the program several times, which is not supported",
    "submit-answer": "asks for answers instead of a program",
}
_NO_PROGRAM = re.compile(r"\.(?:h|hh|hpp|txt|md|ya?ml|json)$|^(?:README|LICENSE)|^\.", re.I)


def is_kattis_package(path: str | Path) -> bool:
    """Whether a directory is a problem package: it has a problem.yaml, and data or a statement."""
    path = Path(path)
    parts = ("data", "statement", "problem_statement", "submissions")
    return (path / "problem.yaml").is_file() and any((path / part).is_dir() for part in parts)


def package_of(path: Path) -> Path | None:
    """The problem package that a path is, or whose problem.yaml it is; None for any other."""
    package = path.parent if path.name == "problem.yaml" else path
    return package if is_kattis_package(package) else None


def package_document(package: Path) -> tuple[dict[str, Any], str]:
    """What a problem file of ours would say for a package, and where it came from.

    Args:
        package: its directory; paths in the document are relative to it.

    Raises:
        InputError: the package is incomplete, or needs what is not supported; the message names
            the file and the reason.
    """
    where = package / "problem.yaml"
    refuse_links_out(package, _PARTS)
    metadata = read_yaml(where)
    _require_known_version(package, metadata)
    legacy = is_legacy(metadata)
    kinds = _types(package, metadata, legacy)
    constants = _constants(where, metadata)
    statement, own_title = read_statement(package, constants)
    interactive = "interactive" in kinds
    data = read_tests(package, constants, legacy=legacy, interactive=interactive)
    if (package / "include").is_dir() and any((package / "include").rglob("*.*")):
        raise InputError(f"{package}/include: code added to submissions is not supported")
    if not legacy and (package / "static_validator").is_dir():
        raise InputError(f"{package}/static_validator: judging the source is not supported")
    submissions, _ = read_submissions(package, constants)
    accepted = [s for s in submissions if s["verdict"] == "AC" and "language" not in s]
    document = {
        "id": slug(package.resolve().name),
        "title": _title(package, metadata) or own_title or package.resolve().name,
        "statement": "\n\n".join([statement, *data.shown]) + "\n",
        "limits": _limits(package, metadata),
        "checker": _checker(package, metadata, kinds, data, constants),
        "tests": data.tests,
        "solution": accepted[0]["code"] if accepted else None,
        "submissions": submissions,
    }
    return {k: v for k, v in document.items() if v not in (None, [])}, str(where)


def _require_known_version(package: Path, metadata: Mapping[str, Any]) -> None:
    version = format_version(metadata)
    if version not in _VERSIONS:
        raise InputError(
            f"{package}/problem.yaml: problem_format_version: {version}: "
            f"expected one of {', '.join(_VERSIONS)}"
        )


def _types(package: Path, metadata: Mapping[str, Any], legacy: bool) -> set[str]:
    """pass-fail or scoring, and `interactive`, `custom` where they hold."""
    given = metadata.get("type") or "pass-fail"
    kinds = set(map(str, given)) if isinstance(given, list) else set(str(given).split())
    if unknown := kinds - set(_TYPES):
        raise InputError(
            f"{package}/problem.yaml: type: {', '.join(sorted(unknown))}: "
            f"expected some of {', '.join(_TYPES)}"
        )
    validation = _validation(package, metadata)
    folder = _validator_folder(package)
    kinds |= validation - {"default", "score"}
    for kind, why in _UNSUPPORTED_TYPES.items():
        if kind in kinds:
            raise InputError(f"{package}/problem.yaml: {kind}: the problem {why}")
    if not legacy:
        kinds |= {"custom"} if folder is not None else set()
    elif "custom" not in kinds and folder is not None and _programs(folder):
        raise InputError(
            f"{package}/problem.yaml: validation is default, but {folder.name}/ holds a "
            "program: say custom, or remove it"
        )
    if "score" in validation or (not legacy and {"scoring", "custom"} <= kinds):
        raise InputError(
            f"{package}/problem.yaml: the output validator decides a score; "
            "only pass or fail can be judged"
        )
    if "interactive" in kinds and "custom" not in kinds:
        raise InputError(f"{package}: an interactive problem needs an output validator")
    return kinds


def _validation(package: Path, metadata: Mapping[str, Any]) -> set[str]:
    """The words of `validation`: legacy's key, which drafts after it still bring along."""
    given = metadata.get("validation") or "default"
    if isinstance(given, dict):  # an early draft's
        given = " ".join(str(word) for word, holds in given.items() if holds)
    words = {"multi-pass" if word == "multipass" else word for word in str(given).split()}
    if unknown := words - _VALIDATION:
        raise InputError(
            f"{package}/problem.yaml: validation: {', '.join(sorted(unknown))}: "
            f"expected some of {', '.join(sorted(_VALIDATION))}"
        )
    return words


def _constants(where: Path, metadata: Mapping[str, Any]) -> dict[str, str]:
    """Values for `{{name}}`, and for `{{name.variant}}` where a constant has several forms."""
    constants: dict[str, str] = {}
    for name, value in mapping_of(where, metadata, "constants").items():
        forms = value if isinstance(value, dict) else {"value": value}
        if "value" not in forms:
            raise InputError(f"{where}: constants: {name}: value: missing")
        constants[name] = str(forms["value"])
        constants.update({f"{name}.{form}": str(text) for form, text in forms.items()})
    return constants


def _title(package: Path, metadata: Mapping[str, Any]) -> str | None:
    name = metadata.get("name")
    if isinstance(name, list):
        raise InputError(f"{package}/problem.yaml: name: expected text, or a name a language")
    if isinstance(name, dict):
        languages = [code for code in statement_languages(package) if code in name]
        name = name[languages[0]] if languages else next(iter(name.values()), None)
    return str(name) if name else _ini(package).get("name")


def _limits(package: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Limits as ours; without a time limit our default stands.

    The time limit is, in this order: in problem.yaml, in `.timelimit`, in DOMjudge's own file.
    """
    given = mapping_of(package / "problem.yaml", metadata, "limits")
    limits: dict[str, Any] = {}
    time = given.get("time_limit")
    hidden = package / ".timelimit"
    if time is None and hidden.is_file():
        time = hidden.read_text(encoding="utf-8").strip()
    if time is None:
        time = _ini(package).get("timelimit")
    if time is not None:
        limits["time_s"] = _positive(package, "time_limit", time)
    limits["memory_mib"] = int(
        _positive(package, "memory", given.get("memory") or _TYPICAL_MEMORY_MIB)
    )
    if given.get("output"):
        limits["output_mib"] = int(_positive(package, "output", given["output"]))
    return limits


def _positive(package: Path, key: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not 0.0 < number < float("inf"):
        raise InputError(f"{package}: limits: {key}: {value!r}: expected a number above 0")
    return number


def _ini(package: Path) -> Mapping[str, str]:
    """DOMjudge's domjudge-problem.ini, whose values may stand in quotes."""
    path = package / "domjudge-problem.ini"
    if not path.is_file():
        return {}
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string("[problem]\n" + path.read_text(encoding="utf-8-sig"))
    except (configparser.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    return {key: value.strip("'\"") for key, value in parser["problem"].items()}


def _checker(
    package: Path,
    metadata: Mapping[str, Any],
    kinds: set[str],
    data: CaseData,
    constants: Mapping[str, str],
) -> dict[str, Any]:
    own = metadata.get("validator_flags") or ""
    flags = [*words_of(package / "problem.yaml", "validator_flags", own), *data.flags]
    if "custom" not in kinds:
        if any("checker_args" in test for test in data.tests):
            raise InputError(
                f"{package}/data: the default output validator has other flags in some groups "
                "than in others, which is not supported"
            )
        return default_validator(package, flags)
    source = _validator(package)
    for path in files_below(source):
        if any(f"{{{{{c}}}}}".encode() in path.read_bytes() for c in constants):
            raise InputError(f"{path}: constants in output validators are not supported")
    checker: dict[str, Any] = {
        "type": "program",
        "source": str(source.relative_to(package)),
        "protocol": "kattis",
    }
    if flags:
        checker["args"] = flags
    if "interactive" in kinds:
        checker["interactive"] = True
    return checker


def _validator(package: Path) -> Path:
    """The output validator: a file, or a directory with a program of several files."""
    folder = _validator_folder(package)
    if folder is None:
        raise InputError(f"{package}: validation is custom, but there is no output_validators/")
    programs = _programs(folder)
    if not programs:
        raise InputError(f"{folder}: no output validator in it")
    if len(programs) == 1:
        return programs[0]
    if folder.name == "output_validator":
        return folder
    names = ", ".join(path.name for path in programs)
    raise InputError(f"{folder}: several output validators ({names}); only one is supported")


def _validator_folder(package: Path) -> Path | None:
    """Where the output validator is; the plural is legacy's, and seen in later formats too."""
    folders = (package / name for name in ("output_validator", "output_validators"))
    return next((folder for folder in folders if folder.is_dir()), None)


def _programs(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if not _NO_PROGRAM.search(path.name)]


def default_validator(package: Path, flags: list[str]) -> dict[str, Any]:
    """The format's default output validator, with its flags, as a checker of ours."""
    words: Iterator[str] = iter(flags)
    checker: dict[str, Any] = {"type": "tokens", "case_sensitive": False}
    for word in words:
        if word == "case_sensitive":
            checker["case_sensitive"] = True
        elif word == "space_change_sensitive":
            checker["space_sensitive"] = True
        elif word in ("float_tolerance", "float_relative_tolerance", "float_absolute_tolerance"):
            tolerance = _positive(package, word, next(words, None))
            checker["type"] = "float"
            checker.setdefault("abs_tol", 0.0)
            checker.setdefault("rel_tol", 0.0)
            if word != "float_relative_tolerance":
                checker["abs_tol"] = tolerance
            if word != "float_absolute_tolerance":
                checker["rel_tol"] = tolerance
        else:
            raise InputError(f"{package}: output validator flag {word!r} is not known")
    return checker
