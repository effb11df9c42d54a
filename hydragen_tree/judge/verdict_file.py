"""The verdicts file: one JSON line a judged sample, a superset of the sample's own line."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from hydragen_tree.errors import InputError, Setting
from hydragen_tree.sample.jsonl_file import JsonlFile


class Counts(Protocol):
    """What is told of every verdict that stands in the file: pass@k's tally, for one."""

    def add(self, record: Mapping[str, Any], /) -> None:
        """Count one line of the file, an earlier run's too."""


class VerdictFile:
    """Owns the verdicts file of one run.

    Args:
        path: the file, or None for stdout.
        tally: told of every verdict, those that stand in the file already included.
        resume: continue the file, where there is one. Infrastructure errors in it count as
            missing; a sample that had one is judged again, and its later line is the one to read.
        force: start anew; the verdicts that stand in it are given up with the first new one, or at
            the end. Anything else is not: it may be the problems of a sample yet to come.

    Attributes:
        accepted: task id to accepted samples in the file.
        lines: how many stand in it.

    Raises:
        InputError: the file cannot be written, exists, or holds something else.
    """

    def __init__(
        self, path: Path | None, tally: Counts, *, resume: bool = False, force: bool = False
    ) -> None:
        self.path = path
        self._tally = tally
        self.accepted: dict[str, int] = {}
        self.lines = 0
        self._done: dict[tuple[str, int], bytes] = {}
        self._file = JsonlFile(path, "verdict", resume=resume, force=force)
        self._is_outdated = force
        if resume and not force and not self._file.is_empty:
            try:
                self._read()
            except BaseException:
                self.close()
                raise

    def has(self, task_id: str, sample_index: int, solution: str) -> bool:
        """Whether the sample's verdict stands in the file already.

        Raises:
            InputError: the verdict there is of another program.
        """
        known = self._done.get((task_id, sample_index))
        if known is not None and known != program_digest(solution):
            raise InputError(
                f"{self.path}: sample {sample_index} of {task_id!r} was another program; these are "
                "verdicts of other samples (",
                Setting("force"),
                " starts anew)",
            )
        return known is not None

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a verdict; it stands in the file when this returns.

        Raises:
            BrokenPipeError: nobody reads the stream any more.
            InputError: what stands in the file is not to be given up.
            OutputError: the disk is full, or the file is lost; every earlier line is intact.
        """
        self._start()
        self._file.append(line)
        self._count(line)

    def finish(self) -> None:
        """Ends a run that may have written nothing."""
        self._start()

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()

    def __enter__(self) -> "VerdictFile":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self) -> None:
        if self._is_outdated:
            if not self._file.is_empty:
                self._require_verdicts()
            self._file.clear()
            self._is_outdated = False

    def _count(self, line: Mapping[str, Any]) -> None:
        task_id = line["task_id"]
        self._tally.add(line)
        self.lines += 1
        self.accepted[task_id] = self.accepted.get(task_id, 0) + (line["verdict"] == "AC")

    def _read(self) -> None:
        for _, line in self._file.read(_parse):
            if line["verdict"] == "IE":
                continue  # the judge's own fault: the sample is judged again
            key = (line["task_id"], line["sample_index"])
            if key in self._done:  # of doubled samples; each counts once
                continue
            self._done[key] = program_digest(str(line.get("solution") or ""))
            self._count(line)
        if self._file.torn and not self._file.lines:
            raise InputError(f"{self.path}: holds no verdicts; is it another file?")
        self._file.repair()

    def _require_verdicts(self) -> None:
        assert self.path is not None
        with self.path.open("rb") as file:
            first = file.readline()
        is_torn = not first.endswith(b"\n") and first.startswith(b'{"task_id": ')
        if _parse(first) is None and not is_torn:
            raise InputError(
                f"{self.path}: holds no verdicts, and ",
                Setting("force"),
                " gives up nothing else; name another file, or remove it (",
                Setting("path"),
                ")",
            )


def _parse(raw: bytes) -> dict[str, Any] | None:
    """A line of ours, or None where it is something else."""
    try:
        line: dict[str, Any] = json.loads(raw)
        _ = line["task_id"], line["sample_index"], line["verdict"]
    except (ValueError, KeyError, TypeError):
        return None
    return line


def program_digest(solution: str) -> bytes:
    """Eight bytes that tell programs apart."""
    return hashlib.blake2b(solution.encode("utf-8", "surrogatepass"), digest_size=8).digest()
