"""Files of samples that are not JSON lines: other tools' whole documents, read as lines.

.eval                               inspect's log, a ZIP file with a document for each sample
.json, an object with `samples`     inspect's log as JSON
.json, an object with `eval`        evalplus's eval_results.json
.json, an array of objects          a record of some tool each, as LiveCodeBench writes them
.json, an array of arrays,          programs by the position of their problem, as
    or an object of them by number  bigcode-evaluation-harness and APPS write them
"""

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from io import FileIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from hydragen_tree.errors import InputError

_ZSTD = 93  # of which Python's own zipfile knows from 3.14 on
_DATA_SETS = {  # whose problems bear their position
    "humaneval": lambda position: f"HumanEval/{position}",
    "mbpp": lambda position: f"Mbpp/{position + 11}",  # its test part begins with task 11
    "apps": lambda position: f"apps-{position}",
}


def open_samples(path: Path) -> FileIO:
    """A file of samples as JSON lines, unbuffered.

    Raises:
        InputError: it is a document that cannot be read, or does not say of what it is.
        OSError: there is no such file, or it may not be read.
    """
    if path.suffix == ".eval":
        return _as_lines(_inspect_log(path))
    if path.suffix == ".json" and path.is_file() and (found := _document(path)) is not None:
        return _as_lines(found)
    return path.open("rb", buffering=0)


def _as_lines(records: Iterable[Any]) -> FileIO:
    """A file without a name, which is gone when it is closed."""
    lines = tempfile.TemporaryFile("w+b", buffering=0)  # noqa: SIM115 (the caller's to close)
    try:
        for record in records:
            lines.write(json.dumps(record).encode() + b"\n")
        lines.seek(0)
    except BaseException:
        lines.close()
        raise
    return lines


def _document(path: Path) -> Iterator[Any] | None:
    """The records of a document; None where the file is JSON lines after all."""
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    if isinstance(document, dict):
        if isinstance(document.get("samples"), list):
            return (record for record in document["samples"])
        if isinstance(document.get("eval"), dict):
            return (record for of_task in document["eval"].values() for record in of_task)
        if document and all(key.isdecimal() for key in document):
            return _by_position({int(key): value for key, value in document.items()}, path)
        return None
    if not isinstance(document, list):
        return None
    if document and all(isinstance(record, list) for record in document):
        return _by_position(dict(enumerate(document)), path)
    return (record for record in document)


def _by_position(programs: Mapping[int, Any], path: Path) -> Iterator[Any]:
    words = re.split(r"[^a-z]+", path.stem.lower())
    named = [name for name in _DATA_SETS if name in words]
    if len(named) != 1:
        known = ", ".join(f"generations_{name}.json" for name in _DATA_SETS)
        raise InputError(
            f"{path}: holds programs by the position of their problem, and does not say of which "
            f"data set; name the file after it: {known}"
        )
    return (
        {"task_id": _DATA_SETS[named[0]](position), "solution": program}
        for position, of_task in sorted(programs.items())
        for program in of_task
    )


def _inspect_log(path: Path) -> Iterator[Any]:
    try:
        with ZipFile(path) as log:
            if any(part.compress_type == _ZSTD for part in log.infolist()):
                with suppress(ImportError):  # comes with inspect, and teaches zipfile
                    import_module("zipfile_zstd")
            names = [n for n in log.namelist() if re.fullmatch(r"samples/.+\.json", n)]
            for name in names:
                yield json.loads(log.read(name))
    except (BadZipFile, ValueError) as error:
        raise InputError(f"{path}: not a readable log of inspect ({error})") from None
    except NotImplementedError:
        raise InputError(
            f"{path}: is compressed with zstd, which this Python does not read: "
            "pip install zipfile-zstd, or inspect log convert --to json"
        ) from None
