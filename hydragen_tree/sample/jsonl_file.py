"""A file of JSON lines that one run owns and only ever appends to.

Every line is appended with one write, so that whatever stops a run leaves whole lines and at most
one torn one at the end. A lock keeps a second run away. Stdout, a pipe or a device can be written
likewise, but not be read again.
"""

import contextlib
import fcntl
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hydragen_tree.errors import InputError, OutputError, Setting
from hydragen_tree.files import is_descriptor


class JsonlFile:
    """Opens and claims the output of a run.

    Args:
        path: the file, or None for stdout.
        noun: what a line is, for messages: `sample`.
        resume: lines that stand in the file may be continued.
        force: whatever stands in the file may be given up; `clear` does it.
        beside: a file that belongs to it, and is a sign of an earlier run like lines are.

    Attributes:
        is_regular: a file proper, which can be read again.
        lines: how many were read and appended.
        torn: `read` met a torn line at the end.

    Raises:
        InputError: it cannot be written, exists, or is being written by another run; or there is
            no file that could be resumed or started anew.
    """

    def __init__(
        self,
        path: Path | None,
        noun: str,
        *,
        resume: bool = False,
        force: bool = False,
        beside: Path | None = None,
    ) -> None:
        self.path = path
        self.lines = 0
        self.torn = False
        self._noun = noun
        self._resumes = resume
        self._intact_bytes = 0
        self._is_new = path is not None and not path.exists()
        if resume and path is not None and path.exists() and not path.is_file():
            raise _needs_file("resume", "resumed")  # before it opens: a FIFO waits for its reader
        if force and path is None:
            raise _needs_file("force", "started anew")
        self._fd = _open(path) if path is not None else _stdout()
        self.is_regular = (
            path is not None
            and not is_descriptor(path)
            and stat.S_ISREG(os.fstat(self._fd).st_mode)
        )
        try:
            self._claim(resume, force, beside)
        except BaseException:
            self.close(keep=False)
            raise

    def _claim(self, resume: bool, force: bool, beside: Path | None) -> None:
        if not self.is_regular:
            if resume:
                raise _needs_file("resume", "resumed")
            return
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._is_new = False  # the other run's, so not ours to remove
            raise InputError(f"{self.path}: another run is writing it") from error
        exists = os.fstat(self._fd).st_size > 0 or (beside is not None and beside.exists())
        if exists and not (force or resume):
            raise InputError(
                f"{self.path}: exists; ",
                Setting("resume"),
                " continues it, ",
                Setting("force"),
                " starts it anew (",
                Setting("path"),
                ")",
            )

    @property
    def is_empty(self) -> bool:
        """Nothing stands in the file; so it is with a stream."""
        return not self.is_regular or os.fstat(self._fd).st_size == 0

    def read(
        self, parse: Callable[[bytes], dict[str, Any] | None]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Reads what earlier sessions wrote.

        Args:
            parse: a line as one of ours, or None where it is none.

        Yields:
            Line number, from 1, and line.

        Raises:
            InputError: a line other than the last is not one of ours.
        """
        assert self.path is not None
        for number, raw, line in intact_lines(self.path, self._noun, parse):
            self._intact_bytes += len(raw)
            self.lines += 1
            yield number, line
        self.torn = self._intact_bytes < os.fstat(self._fd).st_size

    def repair(self) -> None:
        """Cuts off the torn last line that `read` met, if it did."""
        if self.torn:
            os.ftruncate(self._fd, self._intact_bytes)
            self.torn = False

    def clear(self) -> None:
        """Gives up what stands in the file."""
        if self.is_regular:
            os.ftruncate(self._fd, 0)

    def append(self, line: Mapping[str, Any]) -> None:
        """Appends one line; it stands in the file when this returns.

        Raises:
            BrokenPipeError: nobody reads the stream any more.
            OutputError: the disk is full, or the file is lost; every earlier line is intact.
        """
        data = (json.dumps(line, allow_nan=False) + "\n").encode()
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except BrokenPipeError:
            raise
        except OSError as error:
            self._take_back(written)
            where = "stdout" if self.path is None else self.path
            safe = "nothing is lost"
            if self.lines:
                safe = f"the {self.lines} {self._noun}s written before are intact"
            again = () if self._resumes else (" with ", Setting("resume"))
            remedy = ("; make room and repeat the command", *again)
            raise OutputError(
                f"{where}: {error.strerror}; {safe}", *(remedy if self.is_regular else ())
            ) from error
        self.lines += 1

    def _take_back(self, n_bytes: int) -> None:
        """Removes the beginning of a line whose rest could not be written, where that works."""
        with contextlib.suppress(OSError):
            end = os.lseek(self._fd, 0, os.SEEK_CUR) - n_bytes
            os.ftruncate(self._fd, end)
            os.lseek(self._fd, end, os.SEEK_SET)

    def sync(self) -> None:
        """Waits until the lines are on the disk."""
        if self.is_regular:
            os.fsync(self._fd)

    def close(self, *, keep: bool = True) -> None:
        """Lets go of the file.

        Args:
            keep: whether to leave an empty file that this run created.
        """
        if self.path is None or self._fd < 0:
            return
        if self._is_new and self.is_regular and not keep:
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(self._fd)
        self._fd = -1


def intact_lines(
    path: Path, noun: str, parse: Callable[[bytes], dict[str, Any] | None]
) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """The lines of a file, but for one at its end that was torn.

    Args:
        path: the file.
        noun: what a line is, for messages.
        parse: a line as what it is, or None where it is something else.

    Yields:
        Line number, from 1; the line as it stands in the file; what `parse` makes of it.

    Raises:
        InputError: a line other than the last is something else.
    """
    torn = False
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if torn:
                raise InputError(
                    f"{path}:{number - 1}: not a {noun}; was the file altered, or is it another "
                    "one?"
                )
            line = parse(raw) if raw.endswith(b"\n") else None
            if line is None:
                torn = True  # unless it turns out not to be the last
                continue
            yield number, raw, line


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written: {error.strerror} (", Setting("path"), ")"
        ) from error


def _needs_file(setting: str, done: str) -> InputError:
    return InputError(
        f"only a file can be {done}; name one with ", Setting("path"), setting=setting
    )


def _stdout() -> int:
    if sys.stdout is None:
        raise InputError("stdout: closed; name a file with ", Setting("path"))
    return sys.stdout.fileno()
