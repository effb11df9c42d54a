"""The example submissions of a problem package, for `hydragen check`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydragen_tree.problem.formats.kattis_data import mapping_of, read_yaml
from hydragen_tree.problem.formats.shared import why_not_python3

# What a folder promises. `rejected`, `brute_force`, `partially_accepted` and `mixed` promise no
# single verdict, so their programs are skipped.
STATUS_OF_FOLDER = {
    "accepted": "AC",
    "wrong_answer": "WA",
    "time_limit_exceeded": "TLE",
    "run_time_error": "RE",
    "memory_limit_exceeded": "MLE",
    "output_limit_exceeded": "OLE",
    "compiler_error": "CE",
}
# A program that passes these limits is in one of those folders where it has none of its own.
_ALSO = {"RE": ("MLE", "OLE"), "TLE": ("OLE",)}
_LANGUAGES = {
    ".py": "python", ".py3": "python", ".c": "c", ".cc": "c++", ".cpp": "c++", ".cxx": "c++",
}  # fmt: skip
_NOT_PROGRAMS = ("submissions.yaml", "README", "README.md")


def read_submissions(
    package: Path, constants: Mapping[str, str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """The submissions that can be run here, accepted ones first.

    Args:
        package: the package's directory.
        constants: values put in for `{{name}}`.

    Returns:
        (submissions as in a document; why each other one was skipped: `submissions/...: reason`).
    """
    found: list[dict[str, Any]] = []
    skipped: list[str] = []
    root = package / "submissions"
    metadata = root / "submissions.yaml"
    rules = read_yaml(metadata) if metadata.is_file() else {}
    folders = sorted(
        (path for path in root.glob("*") if path.is_dir()),
        key=lambda path: (path.name != "accepted", path.name),
    )
    named = {STATUS_OF_FOLDER.get(folder.name) for folder in folders}
    for folder in folders:
        for entry in sorted(folder.iterdir()):
            if entry.name.startswith(".") or entry.name in _NOT_PROGRAMS or _is_empty(entry):
                continue
            name = str(entry.relative_to(package))
            program = _program(entry)
            if folder.name not in STATUS_OF_FOLDER:
                skipped.append(f"{name}: {folder.name} names no single verdict")
            elif {"permitted", "required"} & mapping_of(metadata, rules, folder.name).keys():
                skipped.append(f"{name}: submissions.yaml has rules of its own for {folder.name}")
            elif isinstance(program, str):
                skipped.append(f"{name}: {program}")
            else:
                code = program.read_text(encoding="utf-8", errors="replace")
                for constant, value in constants.items():
                    code = code.replace(f"{{{{{constant}}}}}", value)
                language = _LANGUAGES[program.suffix]
                if language == "python" and (why := why_not_python3(code)):
                    skipped.append(f"{name}: {why}")
                    continue
                status = STATUS_OF_FOLDER[folder.name]
                also = [other for other in _ALSO.get(status, ()) if other not in named]
                known = {"verdict": status, "also": also, "name": name, "code": code}
                known["language"] = "" if language == "python" else language
                found.append({key: value for key, value in known.items() if value})
    return found, skipped


def skipped_submissions(source: Path) -> list[str]:
    """Why submissions of a package cannot be run here; none for a problem that is no package.

    Args:
        source: the problem's file.
    """
    is_package = source.name == "problem.yaml" and source.is_file()
    return read_submissions(source.parent, {})[1] if is_package else []


def _is_empty(entry: Path) -> bool:
    return entry.is_dir() and not any(path.is_file() for path in entry.rglob("*"))


def _program(entry: Path) -> Path | str:
    """The one file of a submission, or why it cannot be run."""
    files = (
        [path for path in sorted(entry.rglob("*")) if path.is_file()] if entry.is_dir() else [entry]
    )
    if len(files) != 1:
        return "a program of several files"
    if files[0].suffix not in _LANGUAGES:
        return f"{files[0].suffix or 'no ending'}: not Python, C or C++"
    return files[0]
