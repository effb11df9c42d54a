"""Data sets of problems as documents of ours: which format a record has, and one reader a format.

    HumanEval, MBPP, evalplus       functions.py
    APPS, CodeContests              here
    LiveCodeBench                   livecodebench.py

Records come from `.json` (one or a list), `.jsonl`, either gzipped, and APPS's own directories.
"""

import gzip
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from hydragen_tree.errors import InputError
from hydragen_tree.problem.formats import functions
from hydragen_tree.problem.formats.livecodebench import is_livecodebench, livecodebench_problem
from hydragen_tree.problem.formats.shared import (
    MEMORY_MIB,
    first_python3,
    json_or_value,
    slug,
    text_checker,
    with_starter,
)

Record = Mapping[str, Any]
Document = dict[str, Any]

_APPS_LEVELS = {"introductory": "easy", "interview": "medium", "competition": "hard"}
_CODE_CONTESTS_LEVELS = {1: "easy", 2: "medium", 3: "hard", 4: "hard", 5: "hard"}
_PYTHON3 = (3, "PYTHON3")


def read_dataset(path: Path) -> Iterator[tuple[str, Document | InputError]]:
    """Every problem of a file, as a document of ours or as the reason why it cannot be one.

    Args:
        path: `.json`, `.jsonl`, either with `.gz`, or a directory in APPS's form.

    Yields:
        (where the record is, document or reason), in order.

    Raises:
        InputError: the file cannot be read, or its format is not known.
    """
    for where, record in _records(path):
        reader = _reader(record, where)
        try:
            yield where, reader(record)
        except InputError as error:
            yield where, error
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            yield where, InputError(f"not in the form of its data set ({error!r:.200})")


def is_apps_directory(path: Path) -> bool:
    """Whether a directory is one APPS problem."""
    return (path / "question.txt").is_file() and (path / "input_output.json").is_file()


def _reader(record: Record, where: str) -> Callable[[Record], Document]:
    readers: list[tuple[Callable[[Record], bool], Callable[[Record], Document]]] = [
        (functions.is_evalplus, functions.evalplus_problem),
        (functions.is_human_eval, functions.human_eval_problem),
        (functions.is_mbpp, functions.mbpp_problem),
        (is_livecodebench, livecodebench_problem),
        (lambda r: {"question", "input_output"} <= r.keys(), apps_problem),
        (lambda r: {"description", "public_tests"} <= r.keys(), code_contests_problem),
    ]
    for recognises, reader in readers:
        if recognises(record):
            return reader
    keys = ", ".join(list(record)[:8])
    raise InputError(
        f"{where}: not a known format (keys: {keys}): expected HumanEval, MBPP, evalplus, APPS, "
        "CodeContests or LiveCodeBench"
    )


def _records(path: Path) -> Iterator[tuple[str, Record]]:
    if path.is_dir():
        yield str(path), _apps_directory(path)
        return
    where, name = str(path), path.name.removesuffix(".gz")
    if not name.endswith((".json", ".jsonl")):
        raise InputError(f"{path}: expected .json or .jsonl (gzipped or not), or a problem package")
    try:
        with _open(path) as file:
            if not name.endswith(".jsonl"):
                loaded = json.load(file)
                records = loaded if isinstance(loaded, list) else [loaded]
                for number, record in enumerate(records, start=1):
                    yield f"{path}[{number}]", _mapping(record, f"{path}[{number}]")
                return
            for number, line in enumerate(file, start=1):
                where = f"{path}:{number}"
                if line.strip():
                    yield where, _mapping(json.loads(line), where)
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: cannot be read: {error}") from None


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _mapping(record: Any, where: str) -> Record:
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected an object with keys, got {type(record).__name__}")
    return record


def _apps_directory(path: Path) -> Record:
    record: dict[str, Any] = {"id": path.name}
    files = [
        ("question", "question.txt"),
        ("input_output", "input_output.json"),
        ("solutions", "solutions.json"),
        ("starter_code", "starter_code.py"),
    ]
    try:
        for key, name in files:
            if (path / name).is_file():
                record[key] = (path / name).read_text(encoding="utf-8")
        if (path / "metadata.json").is_file():
            record |= json.loads((path / "metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    return record


def apps_problem(record: Record) -> Document:
    """APPS: `question`, and `input_output` = `{inputs, outputs, fn_name?}` as JSON in a string."""
    number = record["problem_id"] if "problem_id" in record else record["id"]
    data = json_or_value(record["input_output"]) or {}
    if not data.get("inputs"):
        raise InputError(f"apps-{number}: it has no tests")
    pairs = list(zip(data["inputs"], data["outputs"], strict=True))
    document: Document = {
        "id": f"apps-{int(number)}",
        "statement": with_starter(record["question"], record.get("starter_code")),
        "limits": {"time_s": 4, "memory_mib": MEMORY_MIB},
    }
    if level := _APPS_LEVELS.get(str(record.get("difficulty"))):
        document["difficulty"] = level
    if name := data.get("fn_name"):
        # Some sources hold each result in a list of its own, others do not. Where all are lists of
        # one item it could be either, and as with APPS's own tester both are right.
        wrapped = all(isinstance(out, list) and len(out) == 1 for _, out in pairs)
        document["entry_point"] = name
        document["tests"] = [
            {
                "call": [_integer_keys(argument) for argument in arguments],
                "expected": _integer_keys(out[0] if wrapped else out),
                **({"also_expected": _integer_keys(out)} if wrapped else {}),
            }
            for arguments, out in pairs
        ]
    else:
        document["tests"] = [{"input": _text(i), "output": _text(o)} for i, o in pairs]
        document["checker"] = text_checker(document["tests"], tolerance=1e-6)
    solutions = json_or_value(record.get("solutions")) or []
    if solution := first_python3(solutions):
        document["solution"] = solution
    return document


def code_contests_problem(record: Record) -> Document:
    """CodeContests in JSON: DeepMind's conversion, or the Hub's with columns instead of lists."""
    name = record["name"]
    for key in ("input_file", "output_file"):
        if record.get(key):
            raise InputError(f"{name}: it uses the file {record[key]}, not stdin and stdout")
    keys = ("public_tests", "private_tests", "generated_tests")
    tests = [
        {"input": test["input"], "output": test["output"]}
        for key in keys
        for test in _rows(record.get(key))
    ]
    if not tests:
        raise InputError(f"{name}: it has no tests")
    limits: dict[str, Any] = {"memory_mib": MEMORY_MIB}
    if seconds := _duration(record.get("time_limit")):
        limits["time_s"] = seconds
    if record.get("memory_limit_bytes"):
        limits["memory_mib"] = max(64, int(record["memory_limit_bytes"]) >> 20)
    document: Document = {
        "id": slug(name),
        "title": name,
        "statement": f"{record['description'].strip()}\n",
        "limits": limits,
        "checker": text_checker(tests, tolerance=1e-5),  # the tolerance of its own tester
        "tests": tests,
    }
    if level := _CODE_CONTESTS_LEVELS.get(record.get("difficulty") or 0):
        document["difficulty"] = level
    rows = _rows(record.get("solutions"))
    if solution := first_python3(r["solution"] for r in rows if r["language"] in _PYTHON3):
        document["solution"] = solution
    return document


def _text(value: Any) -> str:
    """A test's text, which may come as a list of its lines; it ends with a newline."""
    text = "\n".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if text.endswith("\n") else f"{text}\n"


def _integer_keys(value: Any) -> Any:
    """A dictionary whose keys all are integers lost that in JSON."""
    if isinstance(value, dict) and value and all(re.fullmatch(r"-?\d+", key) for key in value):
        return {int(key): item for key, item in value.items()}
    return value


def _rows(table: Any) -> list[Record]:
    """A list of records, given so or as a mapping of columns."""
    if isinstance(table, dict):
        return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    return table or []


def _duration(value: Any) -> float | None:
    """Seconds from `{seconds, nanos}`, from protobuf's text form, or from a number."""
    if isinstance(value, str):
        value = {key: int(n) for key, n in re.findall(r"(seconds|nanos): (\d+)", value)}
    if isinstance(value, dict):
        value = (value.get("seconds") or 0) + (value.get("nanos") or 0) / 1e9
    return float(value) if value else None
