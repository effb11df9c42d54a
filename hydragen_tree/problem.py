"""Reading problems: native YAML, whose errors name file, line and key, and packages of others.

    problems/a.yaml:12: limits.time_s: Input should be greater than 0

ruamel.yaml keeps where every key stood; pydantic says what is wrong with it.
"""

import difflib
import glob
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from hydragen_tree.errors import InputError
from hydragen_tree.problem_types import (
    Checker,
    ExactChecker,
    Example,
    FewShot,
    FloatChecker,
    Limits,
    Problem,
    ProgramChecker,
    Submission,
    Test,
    TokensChecker,
    VerdictName,
    problem_json_schema,
)

__all__ = [
    "Checker",
    "ExactChecker",
    "Example",
    "FewShot",
    "FloatChecker",
    "Limits",
    "Problem",
    "ProgramChecker",
    "Submission",
    "Test",
    "TokensChecker",
    "VerdictName",
    "load_problem",
    "load_problems",
    "problem_from_document",
    "problem_json_schema",
]

STDIN = "<stdin>"

_MODELS: dict[str, tuple[type[BaseModel], ...]] = {
    "tests": (Test,),
    "limits": (Limits,),
    "few_shot": (FewShot,),
    "pool": (Example,),
    "submissions": (Submission,),
    "checker": (TokensChecker, FloatChecker, ProgramChecker),
}


def load_problem(path: str | Path) -> Problem:
    """Reads one problem: a native YAML file, or the directory of a Kattis package.

    Raises:
        InputError: it cannot be read or is not valid; every fault is a line of the message.
    """
    path = Path(path)
    if path.is_dir():
        return _load_package(path)
    (document,) = _documents(path.name, _read(path), str(path))[:1] or [None]
    return _validate(document, str(path), {})


def load_problems(sources: Sequence[str]) -> list[Problem]:
    """Reads every problem of files, directories, globs and `-` (standard input).

    Args:
        sources: a directory stands for its *.yaml and *.yml; a glob for its matches, sorted.

    Raises:
        InputError: nothing is found, something is not valid, or two problems share an id.
    """
    pools: dict[Path, Any] = {}
    problems: list[Problem] = []
    for source in sources:
        if source == "-":
            documents = _documents(STDIN, sys.stdin.read(), STDIN)
            problems += [_validate(document, STDIN, pools) for document in documents]
            continue
        for path in _expand(source):
            if path.is_dir():
                problems.append(_load_package(path))
            else:
                for document in _documents(path.name, _read(path), str(path)):
                    problems.append(_validate(document, str(path), pools))
    if not problems:
        raise InputError(f"{', '.join(sources) or 'no sources'}: no problems found")
    name, count = Counter(problem.id for problem in problems).most_common(1)[0]
    if count > 1:
        homes = [problem.source for problem in problems if problem.id == name]
        raise InputError(f"{homes[1]}: id: {name!r} is also the id of {homes[0]}; ids are unique")
    return problems


def problem_from_document(document: dict[str, Any], source: str) -> Problem:
    """Validates a document that another format was turned into.

    Raises:
        InputError: it is not a valid problem.
    """
    return _validate(document, source, {})


def _expand(source: str) -> Iterator[Path]:
    path = Path(source)
    if path.is_dir():
        from hydragen_tree.formats.kattis import is_kattis_package

        if is_kattis_package(path):
            yield path
            return
        inside = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file())
        if not inside:
            raise InputError(f"{source}: no problems here; expected *.yaml files or a package")
        yield from inside
    elif path.exists():
        yield path
    elif matches := sorted(glob.glob(source)):  # noqa: PTH207 (patterns may be absolute)
        yield from (part for match in matches for part in _expand(match))
    else:
        raise InputError(f"{source}: no such problem file, directory or pattern")


def _load_package(path: Path) -> Problem:
    from hydragen_tree.formats.kattis import is_kattis_package, load_package

    if not is_kattis_package(path):
        raise InputError(f"{path}: expected a problem file or a problem package")
    return load_package(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _documents(name: str, text: str, source: str) -> list[Any]:
    """The YAML documents of a text, with line numbers."""
    yaml = YAML(typ="rt", pure=True)
    try:
        documents = [document for document in yaml.load_all(text) if document is not None]
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1
        raise InputError(f"{source}:{line}: the same key twice; expected each key once") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise InputError(f"{at}: not valid YAML: {error.problem or error.context}") from None
    except YAMLError as error:
        raise InputError(f"{source}: not valid YAML: {error}") from None
    if not documents:
        raise InputError(f"{source}: empty; expected a problem with at least a statement")
    return documents


def _validate(document: Any, source: str, pools: dict[Path, Any]) -> Problem:
    if not isinstance(document, dict):
        raise InputError(f"{source}: expected a mapping with `id`, `statement`, `tests`, ...")
    values = dict(document)
    if "id" not in values and source != STDIN:
        values["id"] = Path(source).stem
    if "source" in values:
        raise InputError(_line(source, document, ("source",)) + "source: unknown key")
    few_shot = values.get("few_shot")
    pool_path = few_shot.get("pool") if isinstance(few_shot, dict) else None
    if isinstance(few_shot, dict) and isinstance(pool_path, str):
        values["few_shot"] = {**few_shot, "pool": _pool(source, document, pool_path, pools)}
    try:
        return Problem.model_validate({**values, "source": source})
    except ValidationError as error:
        raise InputError("\n".join(_faults(error, document, source))) from None


def _pool(source: str, document: Any, name: str, pools: dict[Path, Any]) -> Any:
    """The examples of a pool file, read once however many problems share it."""
    path = Path(source).parent / name
    if path not in pools:
        if not path.is_file():
            at = _line(source, document, ("few_shot", "pool"))
            raise InputError(f"{at}few_shot.pool: no file {path}; expected a list or a pool file")
        (content,) = _documents(path.name, _read(path), str(path))[:1]
        if not isinstance(content, dict) or set(content) != {"examples"}:
            raise InputError(f"{path}: expected one key, `examples`, with a list of examples")
        try:
            pools[path] = FewShot(pool=content["examples"], shots=0).pool
        except ValidationError as error:
            faults = _faults(error, {"pool": content["examples"]}, str(path))
            raise InputError("\n".join(faults)) from None
    return pools[path]


def _faults(error: ValidationError, document: Any, source: str) -> Iterator[str]:
    """One line a fault: where, which key, what is wrong, what is expected."""
    for fault in error.errors():
        keys = _real_keys(document, fault["loc"])
        name = ".".join(map(str, keys)) or "problem"
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = "unknown key" + _suggestion(keys)
        elif fault["type"] == "string_type":
            message += f", not {type(fault['input']).__name__}: put it in quotes"
        elif fault["type"] == "missing":
            message = "is missing; expected " + str(fault["loc"][-1])
        yield f"{_line(source, document, keys)}{name}: {message}"


def _real_keys(document: Any, location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """pydantic's location without the names of union members, which no file contains."""
    keys: list[int | str] = []
    node = document
    for index, key in enumerate(location):
        if (isinstance(node, dict) and key in node) or (
            isinstance(node, list | tuple) and isinstance(key, int) and key < len(node)
        ):
            node = node[key]
        elif index < len(location) - 1 or not isinstance(key, str):
            continue
        keys.append(key)
    return tuple(keys)


def _suggestion(keys: tuple[int | str, ...]) -> str:
    above = [key for key in keys[:-1] if isinstance(key, str)]
    models = _MODELS.get(above[-1], (Problem,)) if above else (Problem,)
    known = sorted({name for model in models for name in model.model_fields} - {"source"})
    close = difflib.get_close_matches(str(keys[-1]), known, 1)
    return f"; did you mean `{close[0]}`?" if close else f"; expected one of {', '.join(known)}"


def _line(source: str, document: Any, keys: tuple[int | str, ...]) -> str:
    """`file:line: ` of a key, or of the nearest thing above it."""
    line, node = None, document
    for key in keys:
        if isinstance(node, CommentedMap) and key in node:
            line = node.lc.key(key)[0]
        elif isinstance(node, CommentedSeq) and isinstance(key, int) and key < len(node):
            line = node.lc.item(key)[0]
        else:
            break
        node = node[key]
    if line is None and isinstance(document, CommentedMap | CommentedSeq):
        line = document.lc.line
    return f"{source}: " if line is None else f"{source}:{line + 1}: "
