"""The verdicts file: one JSON line a judged sample, a superset of the sample's own line.

Lines are only ever appended, each with one write, so that whatever stops a run leaves whole lines
and at most one torn one at the end, which resuming cuts off.
"""

import fcntl
import hashlib
import json
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from hydragen_tree.errors import InputError, OutputError


class Counts(Protocol):
    """What is told of every verdict that stands in the file: pass@k's tally, for one."""

    def add(self, record: Mapping[str, Any], /) -> None: ...


class VerdictFile:
    """Owns the verdicts file of one run.

    Args:
        path: the file, or None for stdout.
        tally: told of every verdict, those that stand in the file already included.
        resume: continue the file, where there is one. Infrastructure errors in it count as
            missing; a sample that had one is judged again, and its later line is the one to read.
        force: start anew, whatever stands in it.

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
        if path is None:
            if resume:
                raise InputError("--resume: only a file can be resumed; name one with --output")
            if sys.stdout is None:
                raise InputError("stdout: closed; name a file with --output")
            self._fd = sys.stdout.fileno()
            return
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror} (--output)") from error
        try:
            self._claim(path, resume, force)
        except BaseException:
            self.close()
            raise

    def has(self, task_id: str, sample_index: int, solution: str) -> bool:
        """Whether the sample's verdict stands in the file already.

        Raises:
            InputError: the verdict there is of another program.
        """
        known = self._done.get((task_id, sample_index))
        if known is not None and known != _digest(solution):
            raise InputError(
                f"{self.path}: sample {sample_index} of {task_id!r} was another program; these are "
                "verdicts of other samples (--force starts anew)"
            )
        return known is not None

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a verdict; it stands in the file when this returns.

        Raises:
            BrokenPipeError: nobody reads the stream any more.
            OutputError: the disk is full, or the file is lost; every earlier line is intact.
        """
        data = (json.dumps(line) + "\n").encode()
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except BrokenPipeError:
            raise
        except OSError as error:
            where = self.path or "stdout"
            rest = "; make room and repeat the command with --resume" if self.path else ""
            raise OutputError(f"{where}: {error.strerror}{rest}") from error
        self._count(line)

    def close(self) -> None:
        if self.path is not None:
            os.close(self._fd)

    def __enter__(self) -> "VerdictFile":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _count(self, line: Mapping[str, Any]) -> None:
        task_id = line["task_id"]
        self._tally.add(line)
        self.lines += 1
        self.accepted[task_id] = self.accepted.get(task_id, 0) + (line["verdict"] == "AC")

    def _claim(self, path: Path, resume: bool, force: bool) -> None:
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            if resume:
                raise InputError(f"{path}: only a file can be resumed (--resume)")
            return
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{path}: another run is writing it") from error
        if os.fstat(self._fd).st_size == 0:
            return
        if force:
            os.ftruncate(self._fd, 0)
        elif resume:
            self._read(path)
        else:
            raise InputError(
                f"{path}: exists; --resume continues it, --force starts it anew (--output)"
            )

    def _read(self, path: Path) -> None:
        intact = 0
        torn = False
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if torn:
                    raise InputError(f"{path}:{number - 1}: no verdict; is it another file?")
                line = _parse(raw)
                if line is None:
                    torn = True  # unless it turns out not to be the last
                    continue
                intact += len(raw)
                if line["verdict"] == "IE":
                    continue  # the judge's own fault: the sample is judged again
                key = (line["task_id"], line["sample_index"])
                self._done[key] = _digest(str(line.get("solution") or ""))
                self._count(line)
        if torn and not intact:
            raise InputError(f"{path}: holds no verdicts; is it another file?")
        if torn:
            os.ftruncate(self._fd, intact)


def _parse(raw: bytes) -> dict[str, Any] | None:
    """A line of ours, or None where it is torn."""
    try:
        line: dict[str, Any] = json.loads(raw)
        _ = line["task_id"], line["sample_index"], line["verdict"]
    except (ValueError, KeyError, TypeError):
        return None
    return line if raw.endswith(b"\n") else None


def _digest(solution: str) -> bytes:
    return hashlib.blake2b(solution.encode("utf-8", "surrogatepass"), digest_size=8).digest()
