"""The example submissions of a problem package, for `hydragen check`."""

from collections.abc import Container, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from hydragen_tree.errors import InputError
from hydragen_tree.problem.formats.kattis_data import is_legacy, read_yaml
from hydragen_tree.problem.formats.kattis_expectations import STATUS_OF_FOLDER, Expectations
from hydragen_tree.problem.formats.shared import why_not_python3
from hydragen_tree.problem.links import files_below, refuse_links_out

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
    expectations = Expectations(metadata, rules, scored=_is_scored(package / "problem.yaml"))
    folders = sorted(
        (path for path in root.glob("*") if path.is_dir()),
        key=lambda path: (path.name != "accepted", path.name),
    )
    named = {STATUS_OF_FOLDER.get(folder.name) for folder in folders}
    for folder in folders:
        for entry in sorted(folder.iterdir()):
            if entry.name.startswith(".") or entry.name in _NOT_PROGRAMS:
                continue
            name = PurePosixPath(folder.name, entry.name)
            try:
                refuse_links_out(package, (f"submissions/{name}",))
            except InputError as error:
                skipped.append(str(error).removeprefix(f"{package}/"))
                continue
            if _is_empty(entry):
                continue
            submission = _submission(entry, name, expectations, named)
            if isinstance(submission, str):
                skipped.append(f"submissions/{name}: {submission}")
                continue
            for constant, value in constants.items():
                submission["code"] = submission["code"].replace(f"{{{{{constant}}}}}", value)
            found.append({key: value for key, value in submission.items() if value})
    return found, skipped


def _submission(
    entry: Path, name: PurePosixPath, expectations: Expectations, named: Container[str | None]
) -> dict[str, Any] | str:
    """One submission as in a document; or why it is skipped.

    Args:
        entry: its file or directory.
        name: where that is in `submissions/`.
        expectations: what the package promises.
        named: verdicts that have a folder of their own.
    """
    program = _program(entry)
    if isinstance(program, str):
        return program
    code = program.read_text(encoding="utf-8", errors="replace")
    if not code.strip():
        return "an empty file"
    expected = expectations.of(name, code)
    if isinstance(expected, str):
        return expected
    language = _LANGUAGES[program.suffix]
    if language == "python" and (why := why_not_python3(code)):
        return why
    status, *others = expected
    more = [one for known in expected for one in _ALSO.get(known, ()) if one not in named]
    also = dict.fromkeys((*others, *more))
    return {
        "verdict": status,
        "also": list(also),
        "name": f"submissions/{name}",
        "code": code,
        "language": "" if language == "python" else language,
    }


def _is_scored(path: Path) -> bool:
    metadata = read_yaml(path)
    return is_legacy(metadata) and "scoring" in str(metadata.get("type"))


def _is_empty(entry: Path) -> bool:
    return entry.is_dir() and not files_below(entry)


def _program(entry: Path) -> Path | str:
    """The one file of a submission, or why it cannot be run."""
    files = files_below(entry)
    if len(files) != 1:
        return "a program of several files"
    if files[0].suffix not in _LANGUAGES:
        return f"{files[0].suffix or 'no ending'}: not Python, C or C++"
    return files[0]
