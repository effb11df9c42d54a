"""Problem statements as readable text: the file of a package in the best language and form."""

import re
from collections.abc import Mapping
from pathlib import Path

from hydragen_tree.errors import InputError
from hydragen_tree.problem.formats.latex import latex_to_text, problem_name
from hydragen_tree.problem.formats.latex_math import math_to_text

_FOLDERS = ("statement", "problem_statement")
_NAME = re.compile(r"problem(?:\.(?P<language>[a-z]{2,3}(?:-[A-Za-z]{2})?))?\.(?P<kind>tex|md|txt)")
_SAMPLE_COMMANDS = re.compile(r"\{\{\s*(?:nextsample|remainingsamples)\s*\}\}")
_CODE = re.compile(r"(^```.*?^```[^\n]*$|^~~~.*?^~~~[^\n]*$|`+[^`\n]+`+)", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]*)[^)]*\)(?:\{[^}]*\})?")
_HTML_IMAGE = re.compile(r"<img\b[^>]*>", re.IGNORECASE)
_DISPLAY = re.compile(r"(?<!\\)\$\$(.+?)(?<!\\)\$\$", re.DOTALL)
_IN_TEXT = r"\\(?:text\w*|mbox)\{[^{}]*\}"  # which may hold dollars of its own
_INLINE = re.compile(rf"(?<![\\$])\$(?!\s)((?:{_IN_TEXT}|[^$\n]|\n(?!\n))+?)(?<![\s\\])\$")


def read_statement(package: Path, constants: Mapping[str, str]) -> tuple[str, str | None]:
    """A package's statement, English if there is one, without its samples.

    Args:
        package: the package's directory.
        constants: values for `{{name}}` and `\\constant{name}`.

    Returns:
        (text, the title that the statement itself gives, if any).

    Raises:
        InputError: there is no statement, it is a PDF only, or it cannot be read.
    """
    path = _best_file(package)
    try:
        source = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the statement cannot be read: {error}") from None
    if path.suffix == ".tex":
        text = latex_to_text(source, constants, lambda name: _included(package, path, name))
        title = problem_name(source)
    elif path.suffix == ".md":
        text, title = markdown_to_text(source, constants), None
    else:
        text, title = source.strip(), None
    if not text:
        raise InputError(f"{path}: the statement is empty")
    return text, title


def _included(package: Path, statement: Path, name: str) -> str | None:
    """The text of a file of the package that the statement includes; None for any other."""
    for place in (statement.parent, package):
        for path in ((place / name).resolve(), (place / f"{name}.tex").resolve()):
            if path.is_relative_to(package.resolve()) and path.is_file():
                try:
                    return path.read_text(encoding="utf-8-sig")
                except (OSError, UnicodeDecodeError):
                    return None
    return None


def statement_languages(package: Path) -> list[str]:
    """The languages of the package's statements, the one that is read first."""
    files = _files(package)
    return [_language(path) for path in files]


def markdown_to_text(source: str, constants: Mapping[str, str] | None = None) -> str:
    """Markdown with its formulas as plain text, pictures as their description, constants put in.

    Code, in fences or back quotes, stays as it is but for constants.
    """
    text = _SAMPLE_COMMANDS.sub("", _COMMENT.sub("", source.replace("\r\n", "\n")))
    for name, value in (constants or {}).items():
        text = text.replace(f"{{{{{name}}}}}", value)
    parts = _CODE.split(text)  # code is at the odd places
    parts[::2] = [_prose(part) for part in parts[::2]]
    return re.sub(r"\n{3,}", "\n\n", "".join(parts)).strip()


def _prose(text: str) -> str:
    text = _IMAGE.sub(lambda m: f"[Figure: {m.group(1).strip() or m.group(2)}]", text)
    text = _HTML_IMAGE.sub(_html_image, text)
    text = _DISPLAY.sub(lambda m: f"\n\n{math_to_text(m.group(1))}\n\n", text)
    text = _INLINE.sub(lambda m: math_to_text(m.group(1)), text)
    return text.replace("\\$", "$")


def _html_image(tag: re.Match[str]) -> str:
    """A picture's place, with what is said of it, or else its file."""
    found = dict(re.findall(r"""(alt|src)\s*=\s*["']?([^"'>]*)""", tag.group(), re.IGNORECASE))
    return f"[Figure: {(found.get('alt') or found.get('src') or '').strip() or 'a picture'}]"


def _best_file(package: Path) -> Path:
    files = _files(package)
    if files:
        return files[0]
    if any(path.suffix == ".pdf" for name in _FOLDERS for path in (package / name).glob("*")):
        raise InputError(
            f"{package}: the only statement is a PDF, which has no text for a prompt: "
            "add statement/problem.en.md"
        )
    raise InputError(
        f"{package}: no statement: expected problem.<language>.tex, .md or .txt "
        "in statement/ or problem_statement/"
    )


def _files(package: Path) -> list[Path]:
    """The statements that can be read, best first: English, then Markdown before LaTeX."""
    kinds = [".md", ".tex", ".txt"]
    found = [
        path
        for name in _FOLDERS
        for path in (package / name).glob("problem*")
        if _NAME.fullmatch(path.name)
    ]
    return sorted(
        found,
        key=lambda path: (
            not _language(path).startswith("en"),
            _language(path),
            kinds.index(path.suffix),
        ),
    )


def _language(path: Path) -> str:
    found = _NAME.fullmatch(path.name)
    return (found.group("language") if found else None) or "en"
